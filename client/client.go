// Package client speaks the Docker Engine API over a Unix socket (or plain
// TCP). It is written for a command line that lives a few milliseconds: HTTP/1.1
// is spoken by hand, because linking net/http alone costs more start-up time
// than a whole request on the socket.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// MaxVersion is the newest API version this client speaks.
const MaxVersion = "1.48"

// Client is one engine's API. It is safe for use by several goroutines.
type Client struct {
	dial func(context.Context) (net.Conn, error)
	host string
	far  bool // on another machine: it is not asked again and again

	negotiate sync.Once
	version   string
	pingErr   error
	info      Ping

	mu   sync.Mutex
	idle []*conn
}

// Options say where the engine is.
type Options struct {
	// Host is unix:///path, tcp://address:port or ssh://[user@]host.
	Host string
	// Dial, when set, replaces the connection to Host (the command line uses
	// it to start the engine on demand).
	Dial func(context.Context) (net.Conn, error)
}

// New returns a client; nothing is connected until the first request.
func New(o Options) (*Client, error) {
	c := &Client{host: o.Host, dial: o.Dial, far: strings.HasPrefix(o.Host, "ssh://")}
	if c.dial != nil {
		return c, nil
	}
	dial, err := Dialer(o.Host)
	if err != nil {
		return nil, err
	}
	c.dial = dial
	return c, nil
}

// Dialer returns a function that connects to host: unix:///path,
// tcp://address:port or ssh://[user@]host.
func Dialer(host string) (func(context.Context) (net.Conn, error), error) {
	proto, addr, ok := strings.Cut(host, "://")
	if !ok || addr == "" {
		return nil, fmt.Errorf("invalid host %q: must be unix:///path, tcp://address:port or ssh://[user@]host", host)
	}
	switch proto {
	case "unix":
	case "tcp":
	case "ssh":
		return sshDialer(host)
	default:
		return nil, fmt.Errorf("invalid host %q: protocol %q is not supported, only unix, tcp and ssh", host, proto)
	}
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, proto, addr)
	}, nil
}

// Host returns the address the client was made for.
func (c *Client) Host() string { return c.host }

// Close drops the idle connections.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.idle {
		k.Close()
	}
	c.idle = nil
	return nil
}

// Ping is what the engine says about itself in the headers of /_ping.
type Ping struct {
	APIVersion     string
	OSType         string
	BuilderVersion string
	Server         string
}

// Ping asks the engine whether it is there and settles the API version: the
// newest that both sides speak.
func (c *Client) Ping(ctx context.Context) (Ping, error) {
	c.negotiate.Do(func() {
		r, err := c.send(ctx, request{method: "GET", path: "/_ping"})
		if err != nil {
			c.pingErr = err
			return
		}
		r.Body.Close()
		c.info = Ping{
			APIVersion:     r.Header.Get("Api-Version"),
			OSType:         r.Header.Get("Ostype"),
			BuilderVersion: r.Header.Get("Builder-Version"),
			Server:         r.Header.Get("Server"),
		}
		c.version = MaxVersion
		if v := c.info.APIVersion; v != "" && versionLess(v, MaxVersion) {
			c.version = v
		}
	})
	return c.info, c.pingErr
}

// Version is the API version in use, after the first request.
func (c *Client) Version() string {
	if c.version == "" {
		return MaxVersion
	}
	return c.version
}

// versionLess compares two "major.minor" versions; what does not parse is
// never less.
func versionLess(a, b string) bool {
	am, an, ok1 := splitVersion(a)
	bm, bn, ok2 := splitVersion(b)
	if !ok1 || !ok2 {
		return false
	}
	return am < bm || am == bm && an < bn
}

func splitVersion(s string) (major, minor int, ok bool) {
	a, b, found := strings.Cut(s, ".")
	if !found {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(a)
	minor, err2 := strconv.Atoi(b)
	return major, minor, err1 == nil && err2 == nil
}

// Error is an answer of the engine with a status of 400 or more.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string { return e.Message }

func hasStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// IsLost tells that the connection broke: the engine did not refuse, it ended.
func IsLost(err error) bool {
	for _, e := range []error{errNoAnswer, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// IsNotFound tells whether the engine answered that an object does not exist.
func IsNotFound(err error) bool { return hasStatus(err, 404) }

// IsUnauthorized tells that a registry refuses the credentials.
func IsUnauthorized(err error) bool { return hasStatus(err, 401) }

// IsNotModified tells whether the engine had nothing to do (already started,
// already stopped).
func IsNotModified(err error) bool { return hasStatus(err, 304) }
