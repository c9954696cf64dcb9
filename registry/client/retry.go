package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// maxTries bounds how often one request is sent.
	maxTries = 6
	// maxPause is the longest Retry-After that is waited for; what asks for
	// more (a quota of hours) is a failure to tell the user.
	maxPause = 2 * time.Minute
)

// pace holds back all requests to a registry that asked for patience.
type pace struct {
	mu        sync.Mutex
	notBefore time.Time
}

func (p *pace) hold(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := time.Now().Add(d); t.After(p.notBefore) {
		p.notBefore = t
	}
}

func (p *pace) wait(ctx context.Context) error {
	p.mu.Lock()
	d := time.Until(p.notBefore)
	p.mu.Unlock()
	return sleep(ctx, d)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// patiently sends a request until it is answered by something other than
// "later": 429 with its Retry-After, gateway errors and broken connections
// with a doubling pause. A request that can't be repeated blindly (replay
// false) is only repeated after 429.
func (c *Client) patiently(ctx context.Context, p *pace, replay bool, once func() (*http.Response, error)) (*http.Response, error) {
	for try := 1; ; try++ {
		if err := p.wait(ctx); err != nil {
			return nil, err
		}
		res, err := once()
		if err != nil {
			if context.Cause(ctx) != nil {
				return nil, context.Cause(ctx)
			}
			if !replay || try >= maxTries || !passing(err) {
				return nil, err
			}
			if err := sleep(ctx, c.backoff(try)); err != nil {
				return nil, err
			}
			continue
		}
		switch res.StatusCode {
		case http.StatusTooManyRequests:
			d, asked := retryAfter(res.Header, time.Now())
			err := refusal(res)
			if d > maxPause {
				return nil, fmt.Errorf("%w (try again in %s)", err, d.Round(time.Second))
			}
			if try >= maxTries {
				return nil, err
			}
			if !asked {
				d = c.backoff(try)
			}
			p.hold(d)
		case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			d, asked := retryAfter(res.Header, time.Now())
			err := refusal(res)
			if !replay || try >= maxTries || d > maxPause {
				return nil, err
			}
			if !asked {
				d = c.backoff(try)
			}
			if err := sleep(ctx, d); err != nil {
				return nil, err
			}
		default:
			return res, nil
		}
	}
}

// backoff doubles from one unit, with a jitter so that layers don't come back
// all at once.
func (c *Client) backoff(try int) time.Duration {
	d := c.unit << min(try-1, 5)
	return d/2 + rand.N(d/2+1)
}

// retryAfter reads the header in either of its forms (RFC 9110 10.2.3).
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now)), true
	}
	return 0, false
}

// passing tells whether a failure without an answer may go away by itself.
// A refused connection, an unknown host or a bad certificate will not, and the
// user waits for the message.
func passing(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary && !dns.IsNotFound
	}
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	if errors.As(err, &cert) || errors.As(err, &record) || errors.Is(err, errRedirect) {
		return false
	}
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, http.ErrSchemeMismatch)
}
