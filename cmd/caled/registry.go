package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cale/api/docker"
	"cale/image"
	"cale/image/store"
	"cale/registry/client"
	"cale/registry/credentials"
	"cale/registry/server"
)

// registries are the addresses on which the image store is served as a registry.
type registries struct {
	store *store.Store
	// restore brings a blob that the store doesn't keep: server.Options.Restore.
	restore func(ctx context.Context, d image.Digest, own func(domain string) bool) (pass io.ReadCloser, done func(), err error)
	// upstream makes a client of other registries, with the credentials given.
	upstream func(func(host string) (user, password string)) *client.Client
	group    string
	open     bool
	// contained gives a test for processes of containers, nil while none of them has the host's network.
	contained func() func(pid int) bool
	file      string // where the addresses are kept that a client asked for: the next caled serves them again

	mu     sync.Mutex
	live   map[string]served
	wanted []docker.RegistrySettings // those in the file
}

type served struct {
	*http.Server
	how docker.RegistrySettings
}

// at finds an address among settings.
func at(address string) func(docker.RegistrySettings) bool {
	return func(h docker.RegistrySettings) bool { return h.Address == address }
}

// resume serves again what the caled before this one served for clients. What can't be is logged, and kept: the
// address may be free again next time.
func (r *registries) resume() {
	raw, err := os.ReadFile(r.file)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var wanted []docker.RegistrySettings
	if err == nil {
		err = json.Unmarshal(raw, &wanted)
	}
	if err != nil {
		log.Printf("registry: %s: %v", r.file, err)
		return
	}
	r.wanted = wanted
	for _, how := range wanted {
		if slices.ContainsFunc(r.List(), at(how.Address)) {
			continue
		}
		if _, err := r.serve(how); err != nil {
			log.Printf("registry: %s is not served again: %v", how.Address, err)
		}
	}
}

// Listen serves the store from now on, and returns the address in use, where port 0 has become the kernel's choice.
func (r *registries) Listen(how docker.RegistrySettings) (string, error) {
	actual, err := r.serve(how)
	if err != nil {
		return "", err
	}
	how.Address = actual
	r.mu.Lock()
	defer r.mu.Unlock()
	return actual, r.want(append(slices.DeleteFunc(r.wanted, at(actual)), how))
}

// want writes down what the next caled is to serve. r.mu is held.
func (r *registries) want(list []docker.RegistrySettings) error {
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

// serve serves the store on an address.
func (r *registries) serve(how docker.RegistrySettings) (string, error) {
	if how.Address == "" {
		how.Address = "127.0.0.1:5000"
	}
	host, _, err := net.SplitHostPort(how.Address)
	if err != nil {
		return "", fmt.Errorf("address %q: %w: give host:port, such as 127.0.0.1:5000", how.Address, err)
	}
	ip := net.ParseIP(host)
	local := host == "localhost" || ip != nil && ip.IsLoopback()
	switch {
	case local || r.open:
	case how.Htpasswd == "":
		return "", fmt.Errorf("address %q is not the loopback's: it would open the image store to the network; name its users with --htpasswd, or start caled with --registry-open", how.Address)
	case how.Cert == "":
		return "", fmt.Errorf("address %q is not the loopback's: passwords would cross the network as they are; give --tls-cert and --tls-key, or start caled with --registry-open", how.Address)
	}
	o, err := r.options(how)
	if err != nil {
		return "", err
	}
	var conf *tls.Config
	if how.Cert != "" || how.Key != "" {
		pair := &keyPair{cert: how.Cert, key: how.Key}
		if _, err := pair.get(nil); err != nil {
			return "", err
		}
		conf = &tls.Config{GetCertificate: pair.get}
	}
	l, err := net.Listen("tcp", how.Address)
	if err != nil {
		return "", err
	}
	how.Address = l.Addr().String()
	o.Domain, o.Aliases = how.Address, aliases(l.Addr())
	var h http.Handler = server.New(r.store, o)
	if !r.open && how.Htpasswd == "" {
		h = r.localOnly(h)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 20, TLSConfig: conf}
	r.mu.Lock()
	if r.live == nil {
		r.live = map[string]served{}
	}
	r.live[how.Address] = served{srv, how}
	r.mu.Unlock()
	go func() {
		if conf != nil {
			_ = srv.ServeTLS(l, "", "")
		} else {
			_ = srv.Serve(l)
		}
	}()
	return how.Address, nil
}

// aliases are the other hosts by which clients reach an address on which a registry listens: only these may become
// part of images' names at a client's word.
func aliases(at net.Addr) []string {
	tcp, ok := at.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() && !tcp.IP.IsUnspecified() {
		return nil
	}
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if tcp.IP.IsUnspecified() {
		if name, err := os.Hostname(); err == nil {
			hosts = append(hosts, name)
		}
		all, _ := net.InterfaceAddrs() // without them, images pushed there have the address of listening in their name
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
				hosts = append(hosts, n.IP.String())
			}
		}
	}
	var out []string
	for _, h := range hosts {
		host := net.JoinHostPort(h, strconv.Itoa(tcp.Port))
		if ref, err := image.ParseReference(host + "/any"); err == nil && ref.Domain == host && host != at.String() {
			out = append(out, host)
		}
	}
	return out
}

// options are the registry's part of the settings.
func (r *registries) options(how docker.RegistrySettings) (server.Options, error) {
	o := server.Options{ReadOnly: how.ReadOnly, Restore: r.restore}
	if how.Htpasswd != "" {
		users, err := server.OpenUsers(how.Htpasswd)
		if err != nil {
			return o, err
		}
		o.Password = users.Check
	}
	if how.Mirror != "" {
		if slices.ContainsFunc(r.List(), at(how.Mirror)) {
			return o, fmt.Errorf("%s is this engine's own registry: there is nothing to mirror", how.Mirror)
		}
		ref, err := image.ParseReference(how.Mirror + "/any")
		if err != nil || ref.Domain != how.Mirror {
			return o, fmt.Errorf("%q is not the host of a registry", how.Mirror)
		}
		o.UpstreamDomain = ref.Domain
		o.Upstream = r.upstream(func(host string) (string, string) {
			// The login of whom the daemon runs as, if there is one.
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			user, password, err := credentials.Get(ctx, host)
			if err != nil {
				log.Printf("registry: login for %s: %v", host, err)
			}
			return user, password
		})
	}
	return o, nil
}

// keyPair is a certificate for TLS in two files, read again when they change.
type keyPair struct {
	cert, key string

	mu   sync.Mutex
	read time.Time // of the files that pair is made of, the later one
	pair *tls.Certificate
}

// get gives what is in the files, or what was when they could last be read.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var newest time.Time
	for _, path := range []string{k.cert, k.key} {
		if fi, err := os.Stat(path); err == nil && fi.ModTime().After(newest) {
			newest = fi.ModTime()
		}
	}
	if k.pair != nil && !newest.After(k.read) {
		return k.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	if err == nil {
		k.pair, k.read = &pair, newest
	} else if k.pair != nil {
		log.Printf("registry: %s: %v", k.cert, err)
		return k.pair, nil
	}
	return k.pair, err
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
	if !ok && !slices.ContainsFunc(r.wanted, at(addr)) {
		return errors.New("nothing is served on " + addr)
	}
	err := r.want(slices.DeleteFunc(slices.Clone(r.wanted), at(addr)))
	if ok {
		delete(r.live, addr)
		err = errors.Join(err, srv.Close())
	}
	return err
}

// List tells the addresses in use, and how they are served.
func (r *registries) List() []docker.RegistrySettings {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]docker.RegistrySettings, 0, len(r.live))
	for _, s := range r.live {
		out = append(out, s.how)
	}
	slices.SortFunc(out, func(a, b docker.RegistrySettings) int { return strings.Compare(a.Address, b.Address) })
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
