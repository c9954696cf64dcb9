package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cale/image"
	"cale/registry/hosts"
)

// configure writes a file of a registry's settings below root.
func configure(t *testing.T, root, domain, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(root, domain), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, domain, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// place is a registry that notes what it was asked, and has what serve says.
type place struct {
	*httptest.Server
	mu  sync.Mutex
	log []string
}

func newPlace(t *testing.T, serve http.HandlerFunc) *place {
	p := &place{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.log = append(p.log, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Authorization")+" "+r.Header.Get("X-Key"))
		p.mu.Unlock()
		serve(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *place) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	log := p.log
	p.log = nil
	return log
}

func basicOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next(w, r)
	}
}

// Mirrors are asked in the order of the file, each with its own credentials
// and headers, by the name that a repository has there, and told whose content
// is wanted; the registry itself comes last.
func TestMirrors(t *testing.T) {
	first := newPlace(t, http.NotFound)
	second := newPlace(t, basicOnly(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/cache/x/b/manifests/1") {
			serveIndex(w, r)
			return
		}
		http.NotFound(w, r)
	}))
	home := newPlace(t, basicOnly(serveIndex))
	domain := home.Listener.Addr().String()
	secondHost := second.Listener.Addr().String()
	root := t.TempDir()
	configure(t, root, strings.Replace(domain, ":", "_", 1)+"_", "hosts.toml", fmt.Sprintf(`
[host.%q]
  capabilities = ["pull", "resolve"]
  [host.%q.header]
    X-Key = "k"
[host.%q]
  capabilities = ["pull", "resolve"]
  override_path = true
  [host.%q.rewrite]
    "^a/(.*)" = "x/$1"
    "^(.*)$" = "never/$1"
`, first.URL, first.URL, second.URL+"/v2/cache/", second.URL+"/v2/cache/"))
	c := New(Options{HostDirs: hosts.Dirs{root}, Credentials: func(host string) (string, string) {
		switch host {
		case secondHost:
			return "mirror", "p"
		case domain:
			return "home", "p"
		}
		return "", ""
	}})
	ref := image.Reference{Domain: domain, Path: "a/b", Tag: "1"}
	if _, err := c.Resolve(testContext(t), ref); err != nil {
		t.Fatal(err)
	}
	ns := "?ns=" + strings.Replace(domain, ":", "%3A", 1)
	if got := first.asked(); !slices.Equal(got, []string{"HEAD /v2/a/b/manifests/1" + ns + "  k", "GET /v2/a/b/manifests/1" + ns + "  k"}) {
		t.Errorf("first: %q", got)
	}
	want := "HEAD /v2/cache/x/b/manifests/1" + ns
	if got := second.asked(); len(got) != 2 || got[0] != want+"  " || got[1] != want+" "+basic("mirror", "p")+" " {
		t.Errorf("second: %q", got)
	}
	if got := home.asked(); len(got) != 0 {
		t.Errorf("home: %q", got)
	}
	if _, err := c.Resolve(testContext(t), ref.WithTag("2")); err != nil {
		t.Fatal(err)
	}
	if got := home.asked(); len(got) != 2 || got[1] != "HEAD /v2/a/b/manifests/2 "+basic("home", "p")+" " {
		t.Errorf("home: %q", got)
	}
	// What is pushed goes to the registry.
	first.asked()
	second.asked()
	_, _ = c.HasBlob(testContext(t), ref, image.FromBytes(nil))
	if got := append(first.asked(), second.asked()...); len(got) != 0 {
		t.Errorf("a push asked the mirrors: %q", got)
	}
}

// A mirror that may only serve content is not asked what a tag stands for.
func TestCapabilities(t *testing.T) {
	mirror, home := newPlace(t, serveIndex), newPlace(t, serveIndex)
	root := t.TempDir()
	domain := home.Listener.Addr().String()
	configure(t, root, "_default", "hosts.toml", fmt.Sprintf("capabilities = ['resolve']\n[host.%q]\ncapabilities = ['pull']\n", mirror.URL))
	c := New(Options{HostDirs: hosts.Dirs{root}})
	ref := image.Reference{Domain: domain, Path: "a/b", Tag: "1"}
	d, err := c.Resolve(testContext(t), ref)
	if err != nil || len(mirror.asked()) != 0 || len(home.asked()) == 0 {
		t.Error(err)
	}
	if _, _, err := c.Manifest(testContext(t), ref, d); err != nil || len(mirror.asked()) == 0 || len(home.asked()) != 0 {
		t.Error(err)
	}
	if _, err := c.HasBlob(testContext(t), ref, d.Digest); !errors.Is(err, errNoHost) {
		t.Error(err)
	}
}

// Settings that can't be read keep everybody from the registry; they count as
// soon as they are corrected.
func TestBadSettings(t *testing.T) {
	home := newPlace(t, serveIndex)
	domain := home.Listener.Addr().String()
	root := t.TempDir()
	configure(t, root, domain, "hosts.toml", "servr = 'x'\n")
	c := New(Options{HostDirs: hosts.Dirs{root}})
	ref := image.Reference{Domain: domain, Path: "a/b", Tag: "1"}
	_, err := c.Resolve(testContext(t), ref)
	if err == nil || !strings.Contains(err.Error(), `hosts.toml: line 1: unknown key "servr"`) || len(home.asked()) != 0 {
		t.Error(err)
	}
	configure(t, root, domain, "hosts.toml", fmt.Sprintf("server = %q\n", home.URL))
	again := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.routes[domain].at = time.Now().Add(-time.Hour)
	}
	again()
	if _, err := c.Resolve(testContext(t), ref); err != nil {
		t.Error(err)
	}
	list, _ := c.endpoints(domain)
	again()
	if same, _ := c.endpoints(domain); same[0] != list[0] {
		t.Error("tokens and connections were thrown away although nothing changed")
	}
}

// TLS as a host's table says it: an authority, a certificate to show, no
// verification.
func TestHostTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := x509.MarshalPKCS8PrivateKey(key)
	pair := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))

	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 && strings.HasSuffix(r.URL.Path, "/2") {
			http.Error(w, "show a certificate", http.StatusForbidden)
			return
		}
		serveIndex(w, r)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	domain := s.Listener.Addr().String()
	ref := image.Reference{Domain: domain, Path: "a/b", Tag: "1"}
	for _, c := range []struct {
		text, tag string
		ok        bool
	}{
		{"", "1", false},
		{"skip_verify = true", "1", true},
		{"ca = 'ca.pem'", "1", true},
		{"ca = ['ca.pem']", "2", false},
		{"ca = 'ca.pem'\nclient = 'both.pem'", "2", true},
		{"ca = 'ca.pem'\nclient = [['both.pem', 'both.pem']]", "2", true},
	} {
		root := t.TempDir()
		configure(t, root, domain, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
		configure(t, root, domain, "both.pem", pair)
		configure(t, root, domain, "hosts.toml", fmt.Sprintf("server = %q\n", s.URL)+c.text)
		_, err := New(Options{HostDirs: hosts.Dirs{root}}).Resolve(testContext(t), ref.WithTag(c.tag))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.text, err)
		}
	}
}

// Headers set for a host do not follow a redirect to another.
func TestHeadersStay(t *testing.T) {
	other := newPlace(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") })
	home := newPlace(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	domain := home.Listener.Addr().String()
	root := t.TempDir()
	configure(t, root, domain, "hosts.toml", "[header]\nx-key = ['secret']\n")
	c := New(Options{HostDirs: hosts.Dirs{root}})
	body, _, err := c.Blob(testContext(t), image.Reference{Domain: domain, Path: "a/b", Tag: "1"}, image.Descriptor{Digest: image.FromBytes([]byte("x")), Size: 1}, 0)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	if got := home.asked(); len(got) != 1 || !strings.HasSuffix(got[0], " secret") {
		t.Errorf("%q", got)
	}
	if got := other.asked(); len(got) != 1 || strings.Contains(got[0], "secret") {
		t.Errorf("%q", got)
	}
}

// A proxy that is set for a host counts whatever the environment says.
func TestHostProxy(t *testing.T) {
	proxy := newPlace(t, serveIndex)
	root := t.TempDir()
	configure(t, root, "nowhere.invalid", "hosts.toml", fmt.Sprintf("server = 'http://nowhere.invalid'\nproxy = %q\n", proxy.URL))
	if _, err := New(Options{HostDirs: hosts.Dirs{root}}).Resolve(testContext(t), image.Reference{Domain: "nowhere.invalid", Path: "a/b", Tag: "1"}); err != nil {
		t.Error(err)
	}
}
