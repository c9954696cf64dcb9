// Package client speaks the OCI distribution protocol (distribution-spec 1.1)
// to a registry: it resolves names, reads and writes manifests and blobs.
//
// Credentials go to the registry that they are for and to the token service
// which that registry names, and nowhere else: not along redirects, not to
// upload locations on other hosts.
package client

import (
	"net/http"
	"sync"
	"time"

	"cale/registry/hosts"
)

// Options says how to reach registries. The zero value is usable.
type Options struct {
	// HTTP carries the requests; nil means a client of the package's own,
	// which takes proxies from the environment.
	HTTP *http.Client
	// Credentials gives user and password for a registry host ("docker.io",
	// "127.0.0.1:5000"); two empty strings mean anonymous. The user may be
	// TokenUser or BearerUser.
	Credentials func(host string) (user, pass string)
	// PlainHTTP tells whether host is spoken to without TLS; nil means
	// loopback hosts only.
	PlainHTTP func(host string) bool
	// HostDirs say for each registry which mirrors, certificates and headers it
	// has; nil means the places of the other container tools in /etc. They have
	// no effect together with HTTP.
	HostDirs hosts.Dirs
	// UserAgent is sent with each request.
	UserAgent string
}

// Client reads and writes registries. It is safe for concurrent use and keeps
// the tokens it was given for as long as it lives.
type Client struct {
	opts Options
	http *http.Client
	unit time.Duration // of waiting between tries
	idle time.Duration // for how long a body may be silent

	mu     sync.Mutex
	routes map[string]*route // by domain
}

// New returns a client.
func New(o Options) *Client {
	if o.Credentials == nil {
		o.Credentials = func(string) (string, string) { return "", "" }
	}
	if o.PlainHTTP == nil {
		o.PlainHTTP = Loopback
	}
	if o.UserAgent == "" {
		o.UserAgent = "cale"
	}
	if o.HostDirs == nil {
		o.HostDirs = hosts.System
	}
	h := http.Client{Transport: transport()}
	if o.HTTP != nil {
		h, o.HostDirs = *o.HTTP, nil
	}
	// Redirects are followed by hand, so that what is sent along is decided
	// here; and no cookie of one registry is shown to another.
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	h.Jar = nil
	return &Client{opts: o, http: &h, unit: 200 * time.Millisecond, idle: idleTimeout, routes: map[string]*route{}}
}
