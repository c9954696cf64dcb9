// Package client speaks the OCI distribution protocol (distribution-spec 1.1)
// to a registry: it resolves names, reads and writes manifests and blobs.
//
// Credentials go to the registry that they are for and to the token service
// which that registry names, and nowhere else: not along redirects, not to
// upload locations on other hosts.
package client

import (
	"net/http"
	"net/url"
	"sync"
	"time"
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
	// Mirrors gives base URLs ("http://127.0.0.1:5000") to read a domain's
	// content from before the domain's own registry is asked; credentials are
	// never sent to them.
	Mirrors func(domain string) []string
	// CertDirs are folders with a folder "host:port" for each registry that
	// has certificates of its own, as Docker has them: *.crt are authorities
	// to trust, NAME.cert and NAME.key are what to show. Nil means Docker's
	// and Podman's places in /etc. It has no effect together with HTTP.
	CertDirs []string
	// UserAgent is sent with each request.
	UserAgent string
}

// Client reads and writes registries. It is safe for concurrent use and keeps
// the tokens it was given for as long as it lives.
type Client struct {
	opts Options
	http *http.Client
	unit time.Duration // of waiting between tries

	mu        sync.Mutex
	endpoints map[string]*endpoint // by base URL
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
	if o.CertDirs == nil {
		o.CertDirs = []string{"/etc/docker/certs.d", "/etc/containers/certs.d"}
	}
	h := http.Client{Transport: transport()}
	if o.HTTP != nil {
		h, o.CertDirs = *o.HTTP, nil
	}
	// Redirects are followed by hand, so that what is sent along is decided
	// here; and no cookie of one registry is shown to another.
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	h.Jar = nil
	return &Client{opts: o, http: &h, unit: 200 * time.Millisecond, endpoints: map[string]*endpoint{}}
}

// endpoint is one place that speaks the protocol, with what is known of it.
type endpoint struct {
	c      *Client
	http   *http.Client
	err    error  // why it can't be spoken to
	domain string // whose credentials it gets; empty for a mirror
	base   url.URL
	pace   pace
	auth   auth
}

// dockerHub is where docker.io's content really is.
const dockerHub = "registry-1.docker.io"

// home is the registry of a domain itself.
func (c *Client) home(domain string) *endpoint {
	host := domain
	if domain == "docker.io" || domain == "index.docker.io" {
		domain, host = "docker.io", dockerHub
	}
	base := url.URL{Scheme: "https", Host: host}
	if c.opts.PlainHTTP(host) && c.certDir(host) == "" {
		base.Scheme = "http"
	}
	return c.endpoint(domain, base)
}

// readers lists where to read a domain's content, in order.
func (c *Client) readers(domain string) []*endpoint {
	var list []*endpoint
	if c.opts.Mirrors != nil {
		for _, m := range c.opts.Mirrors(domain) {
			u, err := url.Parse(m)
			if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
				continue
			}
			list = append(list, c.endpoint("", url.URL{Scheme: u.Scheme, Host: u.Host}))
		}
	}
	return append(list, c.home(domain))
}

func (c *Client) endpoint(domain string, base url.URL) *endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := domain + " " + base.String()
	e := c.endpoints[key]
	if e == nil {
		e = &endpoint{c: c, domain: domain, base: base, http: c.http}
		if dir := c.certDir(base.Host); dir != "" && base.Scheme == "https" {
			e.http, e.err = c.withCerts(dir)
		}
		c.endpoints[key] = e
	}
	return e
}

// url is a path below /v2/ of the endpoint. Repository paths, tags and digests
// come from parsed references and hold nothing that needs escaping.
func (e *endpoint) url(path string) *url.URL {
	u := e.base
	u.Path = "/v2/" + path
	return &u
}
