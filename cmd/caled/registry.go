package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
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
	// contained gives a test for processes of containers, nil while none of them has the host's network.
	contained func() func(pid int) bool
	file      string // where the addresses are kept that a client asked for: the next caled serves them again

	mu     sync.Mutex
	live   map[string]*http.Server
	wanted []string // those in the file
}

// resume serves again what the caled before this one served for clients. What can't be is logged, and kept: the
// address may be free again next time.
func (r *registries) resume() {
	raw, err := os.ReadFile(r.file)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var wanted []string
	if err == nil {
		err = json.Unmarshal(raw, &wanted)
	}
	if err != nil {
		log.Printf("registry: %s: %v", r.file, err)
		return
	}
	r.wanted = wanted
	for _, addr := range wanted {
		if slices.Contains(r.List(), addr) {
			continue
		}
		if _, err := r.serve(addr); err != nil {
			log.Printf("registry: %s is not served again: %v", addr, err)
		}
	}
}

// Listen serves the store on addr from now on, and returns the address in use, where port 0 has become the kernel's
// choice.
func (r *registries) Listen(addr string) (string, error) {
	actual, err := r.serve(addr)
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return actual, r.want(append(slices.DeleteFunc(r.wanted, func(a string) bool { return a == actual }), actual))
}

// want writes down what the next caled is to serve. r.mu is held.
func (r *registries) want(list []string) error {
	raw, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.file+".tmp", raw, 0o600); err != nil {
		return err
	}
	r.wanted = list
	return os.Rename(r.file+".tmp", r.file)
}

// serve serves the store on addr.
func (r *registries) serve(addr string) (string, error) {
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
		if !allowed(q.RemoteAddr, q.Context().Value(http.LocalAddrContextKey), r.group, r.contained()) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"errors":[{"code":"DENIED","message":"this registry serves root and the group of Cale's socket; caled --registry-open lets everyone in"}]}` + "\n"))
			return
		}
		h.ServeHTTP(w, q)
	})
}

// Stop ends serving on addr, for the next caled too.
func (r *registries) Stop(addr string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	srv, ok := r.live[addr]
	if !ok && !slices.Contains(r.wanted, addr) {
		return errors.New("nothing is served on " + addr)
	}
	err := r.want(slices.DeleteFunc(slices.Clone(r.wanted), func(a string) bool { return a == addr }))
	if ok {
		delete(r.live, addr)
		err = errors.Join(err, srv.Close())
	}
	return err
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

// close ends serving, until the next caled.
func (r *registries) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, srv := range r.live {
		_ = srv.Close()
	}
	r.live = nil
}
