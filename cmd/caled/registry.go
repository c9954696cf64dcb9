package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"cale/image/store"
	"cale/registry/server"
)

// registries are the addresses on which the image store is served as a registry.
type registries struct {
	store *store.Store
	group string
	open  bool

	mu   sync.Mutex
	live map[string]*http.Server
}

// Listen serves the store on addr and returns the address in use, where port 0 has become the kernel's choice.
func (r *registries) Listen(addr string) (string, error) {
	if addr == "" {
		addr = "127.0.0.1:5000"
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("address %q: %w: give host:port, such as 127.0.0.1:5000", addr, err)
	}
	if ip := net.ParseIP(host); !r.open && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", fmt.Errorf("address %q is not the loopback's: it would open the image store to the network; caled --registry-open allows that", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	actual := l.Addr().String()
	var h http.Handler = server.New(r.store, server.Options{Domain: actual})
	if !r.open {
		h = r.localOnly(h)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 20}
	r.mu.Lock()
	if r.live == nil {
		r.live = map[string]*http.Server{}
	}
	r.live[actual] = srv
	r.mu.Unlock()
	go func() { _ = srv.Serve(l) }()
	return actual, nil
}

// localOnly lets only the user and the group of the API's socket in: the store holds every user's images.
func (r *registries) localOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if !allowed(q.RemoteAddr, q.Context().Value(http.LocalAddrContextKey), r.group) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"errors":[{"code":"DENIED","message":"this registry serves root and the group of Cale's socket; caled --registry-open lets everyone in"}]}` + "\n"))
			return
		}
		h.ServeHTTP(w, q)
	})
}

// Stop ends serving on addr.
func (r *registries) Stop(addr string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	srv, ok := r.live[addr]
	if !ok {
		return errors.New("nothing is served on " + addr)
	}
	delete(r.live, addr)
	return srv.Close()
}

// List names the addresses in use.
func (r *registries) List() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]string, 0, len(r.live))
	for a := range r.live {
		out = append(out, a)
	}
	slices.Sort(out)
	return out
}

func (r *registries) busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.live) > 0
}

func (r *registries) close() {
	for _, a := range r.List() {
		_ = r.Stop(a)
	}
}
