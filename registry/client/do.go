package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// call is a request as data, so that it can be sent again.
type call struct {
	method string
	url    *url.URL
	header http.Header
	body   func() io.Reader // nil for none
	length int64
	scope  string // what a token for it must allow
	// once forbids blind repetition: the caller finds out what arrived.
	once bool
}

// errRedirect is a redirect that is not followed.
var errRedirect = errors.New("redirect refused")

// do sends a call with credentials, and again with new ones when the registry
// asks for them: tokens expire in the middle of a transfer. Any answer other
// than "later" and "who are you" is the caller's.
func (e *endpoint) do(ctx context.Context, c call) (*http.Response, error) {
	if e.ns != "" && c.url.Host == e.base.Host {
		u, q := *c.url, c.url.Query()
		q.Set("ns", e.ns)
		u.RawQuery = q.Encode()
		c.url = &u
	}
	for asked := 0; ; asked++ {
		sent, err := e.auth.authorization(ctx, e, c.scope)
		if err != nil {
			return nil, err
		}
		res, err := e.c.patiently(ctx, &e.pace, !c.once, func() (*http.Response, error) { return e.send(ctx, c, sent) })
		if err != nil {
			return nil, err
		}
		if res.StatusCode != http.StatusUnauthorized || asked == 2 || !e.auth.challenged(e, c.scope, sent, res.Header) {
			return res, nil
		}
		drain(res.Body)
	}
}

// send sends a call once, along redirects.
func (e *endpoint) send(ctx context.Context, c call, authorization string) (*http.Response, error) {
	at := c.url
	for hops := 0; ; hops++ {
		res, err := e.hop(ctx, c, at, authorization)
		if err != nil {
			return nil, err
		}
		switch res.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
			if c.method != http.MethodGet && c.method != http.MethodHead {
				return res, nil
			}
		case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return res, nil
		}
		drain(res.Body)
		to, err := at.Parse(res.Header.Get("Location"))
		switch {
		case err != nil || res.Header.Get("Location") == "" || to.Host == "":
			return nil, fmt.Errorf("%w: registry %s sends to an invalid address", errRedirect, at.Host)
		case hops == 9:
			return nil, fmt.Errorf("%w: registry %s redirects too often", errRedirect, e.base.Host)
		case to.Scheme != "https" && !(to.Scheme == "http" && at.Scheme == "http"):
			return nil, fmt.Errorf("%w: registry %s sends to %s without TLS", errRedirect, at.Host, to.Host)
		}
		to.User = nil
		at = to
	}
}

// hop sends one HTTP request. Credentials, and the headers that were set for
// the endpoint, go along only to its own origin.
func (e *endpoint) hop(ctx context.Context, c call, to *url.URL, authorization string) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	wait := answerTimeout
	var body io.Reader
	if c.body != nil {
		body = c.body()
		wait = uploadTimeout
	}
	req, err := http.NewRequestWithContext(ctx, c.method, to.String(), body)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if c.header != nil {
		req.Header = c.header.Clone()
	}
	req.Header.Set("User-Agent", e.c.opts.UserAgent)
	// Digests are of the bytes as they are stored: no encoding on the way.
	req.Header.Set("Accept-Encoding", "identity")
	if body != nil {
		req.ContentLength = c.length
		req.Header.Set("Content-Type", contentType(c.header))
	}
	if to.Scheme == e.base.Scheme && to.Host == e.base.Host {
		for k, v := range e.Header {
			req.Header[k] = v
		}
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
	}
	timer := time.AfterFunc(wait, func() { cancel(errNoAnswer) })
	if r, ok := body.(*paced); ok {
		// Sending may take as long as it moves.
		r.moved = func() { timer.Reset(wait) }
	}
	res, err := e.http.Do(req)
	timer.Stop()
	if err != nil {
		if context.Cause(ctx) == errNoAnswer {
			err = errNoAnswer
		}
		cancel(nil)
		return nil, unreachable(to.Host, err)
	}
	res.Body = watch(ctx, cancel, res.Body, e.c.idle)
	return res, nil
}

var errNoAnswer = errors.New("no answer")

func contentType(h http.Header) string {
	if t := h.Get("Content-Type"); t != "" {
		return t
	}
	return "application/octet-stream"
}

// paced tells when a request's body is read.
type paced struct {
	io.Reader
	moved func()
	count func(n int)
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if p.moved != nil {
		p.moved()
	}
	if p.count != nil {
		p.count(n)
	}
	return n, err
}

// drain ends a response so that its connection can be used again.
func drain(body io.ReadCloser) {
	io.Copy(io.Discard, io.LimitReader(body, maxErrorBody))
	body.Close()
}
