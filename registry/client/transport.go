package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// How long silence is borne. A registry may need minutes to check a large
// upload before it answers.
const (
	dialTimeout   = 20 * time.Second
	answerTimeout = time.Minute
	uploadTimeout = 10 * time.Minute
	idleTimeout   = time.Minute
)

// transport is what all clients without an HTTP client of their own share, so
// that connections are reused from one pull to the next.
var transport = sync.OnceValue(func() http.RoundTripper {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ExpectContinueTimeout: 2 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   8,
		// One HTTP/2 connection would share one flow-control window between
		// all layers; the blobs are compressed already.
		ForceAttemptHTTP2:  false,
		DisableCompression: true,
	}
})

// Loopback tells whether a registry host ("localhost:5000", "127.0.0.1",
// "[::1]:5000") is on this machine.
func Loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// errIdle is why a silent transfer was ended.
var errIdle = errors.New("no data for too long")

// watched ends a body that stays silent; it owns the request's context.
type watched struct {
	io.ReadCloser
	timer  *time.Timer
	limit  time.Duration
	cancel context.CancelCauseFunc
	ctx    context.Context
}

func watch(ctx context.Context, cancel context.CancelCauseFunc, body io.ReadCloser, limit time.Duration) io.ReadCloser {
	return &watched{ReadCloser: body, limit: limit, cancel: cancel, ctx: ctx,
		timer: time.AfterFunc(limit, func() { cancel(errIdle) })}
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err == nil {
		w.timer.Reset(w.limit)
	} else if err != io.EOF && context.Cause(w.ctx) != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.cancel(nil)
	return err
}
