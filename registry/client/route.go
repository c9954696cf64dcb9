package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"cale/image"
	"cale/registry/hosts"
)

// endpoint is one place that speaks the protocol, with what is known of it.
type endpoint struct {
	hosts.Host
	c      *Client
	http   *http.Client
	domain string // its own name, whose credentials it gets
	ns     string // the domain it stands in for, which it is told: it may have several
	base   url.URL
	pace   pace
	auth   auth
}

// route is where to go for a domain, in order.
type route struct {
	read sync.Mutex // while the settings are read

	at   time.Time
	conf *hosts.Config
	err  error
	list []*endpoint
}

// fresh is how long settings are taken to be as they were read.
const fresh = time.Second

// dockerHub is where docker.io's content really is.
const dockerHub = "registry-1.docker.io"

// endpoints lists the places that a domain's content is at, the mirrors first.
// Settings that changed count from the next request on.
func (c *Client) endpoints(domain string) ([]*endpoint, error) {
	if domain == "index.docker.io" || domain == dockerHub {
		domain = "docker.io"
	}
	c.mu.Lock()
	r := c.routes[domain]
	if r == nil {
		r = &route{}
		c.routes[domain] = r
	}
	c.mu.Unlock()
	r.read.Lock()
	defer r.read.Unlock()
	if !r.at.IsZero() && time.Since(r.at) < fresh {
		return r.list, r.err
	}
	conf, err := c.opts.HostDirs.Load(domain)
	known := r.list != nil && err == nil && (conf == nil) == (r.conf == nil) && (conf == nil || conf.Sum == r.conf.Sum)
	if !known {
		r.list, r.conf = nil, conf
		if err == nil {
			r.list, err = c.build(domain, conf)
		}
	}
	r.at, r.err = time.Now(), err
	return r.list, err
}

func (c *Client) build(domain string, conf *hosts.Config) ([]*endpoint, error) {
	if conf == nil {
		conf = &hosts.Config{Hosts: []hosts.Host{{Server: true, Pull: true, Resolve: true, Push: true}}}
	}
	var list []*endpoint
	for _, h := range conf.Hosts {
		e := &endpoint{Host: h, c: c, http: c.http, base: h.URL}
		if h.URL.Host == "" {
			e.base = c.own(domain, h.TLS())
		}
		e.domain = e.base.Host
		if e.domain == dockerHub {
			e.domain = "docker.io"
		}
		if e.domain != domain {
			e.ns = domain
		}
		if h.TLS() || h.DialTimeout > 0 || h.Proxy != nil {
			t, err := Transport(h)
			if err != nil {
				return nil, fmt.Errorf("registry %s: %w", domain, err)
			}
			own := *c.http
			own.Transport = t
			e.http = &own
		}
		list = append(list, e)
	}
	return list, nil
}

// own is the registry that a domain names by itself.
func (c *Client) own(domain string, tls bool) url.URL {
	host := domain
	if domain == "docker.io" {
		host = dockerHub
	}
	u := url.URL{Scheme: "https", Host: host, Path: "/v2"}
	if !tls && c.opts.PlainHTTP(host) {
		u.Scheme = "http"
	}
	return u
}

// Transport is a transport for a host with connections of its own kind.
func Transport(h hosts.Host) (*http.Transport, error) {
	t := transport().(*http.Transport).Clone()
	if h.TLS() {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, err
		}
		pool.AppendCertsFromPEM(h.Authorities)
		t.TLSClientConfig = &tls.Config{RootCAs: pool, Certificates: h.Certificates, InsecureSkipVerify: h.SkipVerify, MinVersion: tls.VersionTLS12}
	}
	if h.DialTimeout > 0 {
		t.DialContext = (&net.Dialer{Timeout: h.DialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	if h.Proxy != nil {
		t.Proxy = http.ProxyURL(h.Proxy)
	}
	return t, nil
}

// What a host may be trusted with.
type capability func(*endpoint) bool

func canPull(e *endpoint) bool    { return e.Pull }
func canResolve(e *endpoint) bool { return e.Resolve }
func canPush(e *endpoint) bool    { return e.Push }

// reading tries f at a domain's mirrors and then at its registry, whose error
// counts. Repositories may have other names at a mirror: f is told ref's there.
func (c *Client) reading(ctx context.Context, ref image.Reference, may capability, f func(*endpoint, image.Reference) error) error {
	list, err := c.endpoints(ref.Domain)
	if err != nil {
		return err
	}
	err = errNoHost
	home := ctx.Value(withoutMirrors{}) != nil
	for _, e := range list {
		if !may(e) || home && !e.Server {
			continue
		}
		there := ref
		there.Path = e.Host.Path(ref.Path)
		if !image.ValidRepository(there.Path) {
			return fmt.Errorf("registry %s: a rewrite makes %q of %q, which is no repository's name", ref.Domain, oneLine(there.Path, 100), ref.Path)
		}
		if err = f(e, there); err == nil || context.Cause(ctx) != nil {
			return err
		}
	}
	return err
}

type withoutMirrors struct{}

// WithoutMirrors makes requests go to registries themselves: a mirror gave out
// what is wrong.
func WithoutMirrors(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutMirrors{}, true)
}

// Mirrored tells whether content of ref's registry may come from a mirror,
// although the registry itself may be asked.
func (c *Client) Mirrored(ref image.Reference) bool {
	list, err := c.endpoints(ref.Domain)
	return err == nil && len(list) > 1 && list[len(list)-1].Pull
}

// errNoHost says that the settings leave nobody to ask.
var errNoHost = errors.New("its settings name no host that may do this")

// writer is where a domain's content is pushed to.
func (c *Client) writer(domain string) (*endpoint, error) {
	list, err := c.endpoints(domain)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if canPush(e) {
			return e, nil
		}
	}
	return nil, fmt.Errorf("registry %s: %w", domain, errNoHost)
}

// url is a path below the endpoint's. Repository paths, tags and digests come
// from parsed references and hold nothing that needs escaping.
func (e *endpoint) url(path string) *url.URL {
	u := e.base
	u.Path += "/" + path
	return &u
}
