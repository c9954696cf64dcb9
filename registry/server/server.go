// Package server serves the OCI distribution protocol (distribution-spec 1.1)
// from an image store: what is pushed is an image of the store at once, and
// the store's images can be pulled.
//
// A tag is a name of the store. A manifest that no tag reaches (pushed by
// digest, or left behind by a tag that moved) is held by a lease of the store,
// so that the list of images shows tags only and removing an image frees its
// space. Blobs belong to the repositories whose manifests refer to them, and
// for a while to where they were uploaded.
package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"cale/image"
	"cale/image/store"
)

const (
	// maxBusy bounds the requests that are answered at one time.
	maxBusy = 256
	// defaultMaxBlob bounds one blob in bytes.
	defaultMaxBlob = 64 << 30
)

// Options bounds what a registry does.
type Options struct {
	// ReadOnly refuses every write.
	ReadOnly bool
	// Domain is the host part of the store names that this registry's
	// repositories have: repository foo/bar with tag 1 is "<Domain>/foo/bar:1".
	// Reads also find docker.io names. Empty means "localhost".
	Domain string
	// Aliases are other hosts by which clients reach this registry: what is
	// pushed by way of one has it in its names, as whoever pushed it calls it.
	// Names of all of them are one repository's.
	Aliases []string
	// MaxBlob bounds one blob in bytes; 0 means 64 GiB.
	MaxBlob int64
	// Password, if not nil, decides who is let in, by HTTP's basic scheme.
	Password func(user, password string) bool
	// Restore, if not nil, brings back a blob that the store does not keep
	// (store.Origin), not from any domain that is this registry's own. done is
	// called when it has been sent. If it can't be brought to the store, as
	// somebody else is doing that and may wait for this registry, pass is the blob.
	Restore func(ctx context.Context, d image.Digest, own func(domain string) bool) (pass io.ReadCloser, done func(), err error)
	// Upstream, if not nil, is a registry that this one mirrors: what is asked
	// for and not here is fetched from there, under the same repository of
	// UpstreamDomain, and kept. A mirror is read only.
	Upstream       Upstream
	UpstreamDomain string
}

// New returns the handler of /v2/.
func New(s *store.Store, o Options) http.Handler {
	if o.Domain == "" {
		o.Domain = "localhost"
	}
	if o.MaxBlob == 0 {
		o.MaxBlob = defaultMaxBlob
	}
	g := &registry{store: s, opts: o, busy: make(chan struct{}, maxBusy)}
	g.opts.ReadOnly = o.ReadOnly || o.Upstream != nil
	g.mirror.blobs, g.mirror.pieces = map[string]image.Descriptor{}, map[string]image.Descriptor{}
	g.mirror.coming = map[image.Digest]*arrival{}
	g.uploads.store, g.uploads.all = s, map[string]*session{}
	g.recent.init(s)
	return g
}

type registry struct {
	store   *store.Store
	opts    Options
	busy    chan struct{}
	uploads uploads
	recent  recent
	docs    documents
	mirror  mirror

	// change is held while names and leases are changed together.
	change sync.Mutex
}

// ServeHTTP answers one request.
func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	select {
	case g.busy <- struct{}{}:
		defer func() { <-g.busy }()
	default:
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "the registry is busy")
		return
	}
	if g.opts.Password != nil {
		if user, password, ok := r.BasicAuth(); !ok || !g.opts.Password(user, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="cale registry"`)
			fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
			return
		}
	}
	if err := g.route(w, r); err != nil {
		failed(w, err)
	}
}

// route finds what a path means. A repository may have any of the protocol's
// words in its name, so paths are read from their end.
func (g *registry) route(w http.ResponseWriter, r *http.Request) error {
	path, ok := strings.CutPrefix(r.URL.Path, "/v2")
	if !ok || (path != "" && path[0] != '/') {
		return &problem{http.StatusNotFound, "NOT_FOUND", "no such address"}
	}
	switch path = strings.TrimPrefix(path, "/"); path {
	case "":
		return methods(w, r, action{"GET", func() error {
			w.Header().Set("Content-Type", "application/json")
			_, err := w.Write([]byte("{}"))
			return err
		}})
	case "_catalog":
		return methods(w, r, action{"GET", func() error { return g.catalog(w, r) }})
	}
	part := strings.Split(path, "/")
	n := len(part)
	repo := func(tail int) string { return strings.Join(part[:n-tail], "/") }
	switch {
	case n >= 3 && part[n-2] == "tags" && part[n-1] == "list":
		return g.in(repo(2), func(repo string) error {
			return methods(w, r, action{"GET", func() error { return g.tags(w, r, repo) }})
		})
	case n >= 4 && part[n-3] == "blobs" && part[n-2] == "uploads":
		return g.in(repo(3), func(repo string) error { return g.upload(w, r, repo, part[n-1]) })
	case n >= 3 && part[n-2] == "blobs" && part[n-1] == "uploads":
		return g.in(repo(2), func(repo string) error { return g.upload(w, r, repo, "") })
	case n >= 3 && part[n-2] == "blobs":
		return g.in(repo(2), func(repo string) error {
			d, err := parseDigest(part[n-1])
			if err != nil {
				return err
			}
			return methods(w, r,
				action{"GET", func() error { return g.getBlob(w, r, repo, d) }},
				action{"DELETE", func() error { return g.deleteBlob(w, repo, d) }})
		})
	case n >= 3 && part[n-2] == "manifests":
		return g.in(repo(2), func(repo string) error {
			at := part[n-1]
			return methods(w, r,
				action{"GET", func() error { return g.getManifest(w, r, repo, at) }},
				action{"PUT", func() error { return g.putManifest(w, r, repo, at) }},
				action{"DELETE", func() error { return g.deleteManifest(w, repo, at) }})
		})
	case n >= 3 && part[n-2] == "referrers":
		return g.in(repo(2), func(repo string) error {
			d, err := parseDigest(part[n-1])
			if err != nil {
				return err
			}
			return methods(w, r, action{"GET", func() error { return g.referrers(w, r, repo, d) }})
		})
	}
	return &problem{http.StatusNotFound, "NOT_FOUND", "no such address"}
}

func (g *registry) in(repo string, f func(repo string) error) error {
	if !image.ValidRepository(repo) {
		return &problem{http.StatusBadRequest, "NAME_INVALID", "invalid repository name"}
	}
	return f(repo)
}

func parseDigest(s string) (image.Digest, error) {
	d, err := image.ParseDigest(s)
	if err != nil {
		return d, &problem{http.StatusBadRequest, "DIGEST_INVALID", "invalid digest"}
	}
	return d, nil
}

// action is what a method does. GET also stands for HEAD.
type action struct {
	method string
	do     func() error
}

func methods(w http.ResponseWriter, r *http.Request, list ...action) error {
	m := r.Method
	if m == http.MethodHead {
		m = http.MethodGet
	}
	var allow []string
	for _, a := range list {
		if a.method == m {
			return a.do()
		}
		allow = append(allow, a.method)
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is unsupported"}
}

// writable refuses writes to a registry that is read only.
func (g *registry) writable() error {
	if g.opts.ReadOnly {
		return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "the registry is read only"}
	}
	return nil
}

// page reads n and last of a list request; n is -1 when all is asked for.
func page(r *http.Request) (n int, last string, err error) {
	q := r.URL.Query()
	n = -1
	if v := q.Get("n"); v != "" {
		if n, err = strconv.Atoi(v); err != nil || n < 0 {
			return 0, "", &problem{http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n must be a number from 0"}
		}
	}
	return n, q.Get("last"), nil
}

// cut takes one page of sorted entries, and writes the way to the next one.
func cut(w http.ResponseWriter, r *http.Request, all []string) ([]string, error) {
	n, last, err := page(r)
	if err != nil {
		return nil, err
	}
	i := 0
	for last != "" && i < len(all) && all[i] <= last {
		i++
	}
	all = all[i:]
	if n >= 0 && n < len(all) {
		all = all[:n]
		if n > 0 {
			u := *r.URL
			q := u.Query()
			q.Set("n", strconv.Itoa(n))
			q.Set("last", all[n-1])
			u.RawQuery = q.Encode()
			w.Header().Set("Link", fmt.Sprintf("<%s>; rel=%q", u.RequestURI(), "next"))
		}
	}
	return all, nil
}
