package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cale/test/images"
	"cale/test/stack"

	"golang.org/x/crypto/bcrypt"
)

// certificate writes one for the loopback, with its key, that is its own authority.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: raw}, key: {Type: "PRIVATE KEY", Bytes: rawKey}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestRegistryFlags: a registry with users, by TLS; one that only gives out; and one that mirrors another.
func TestRegistryFlags(t *testing.T) {
	s := stack.New(t)
	s.Cale("pull", "-q", s.Busybox()).OK(t)
	dir := t.TempDir()
	serve := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(s.Cale(append([]string{"registry", "-q", "--listen", "127.0.0.1:0"}, args...)...).OK(t))
	}

	t.Run("UsersByTLS", func(t *testing.T) {
		cert, key := certificate(t, dir)
		hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		users := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(users, fmt.Appendf(nil, "jo:%s\n", hash), 0o600); err != nil {
			t.Fatal(err)
		}
		at := serve("--htpasswd", users, "--tls-cert", cert, "--tls-key", key)
		name := at + "/private:1"
		setting(t, s, "certs.d/"+at+"/hosts.toml", fmt.Sprintf("server = 'https://%s'\nca = '%s'\n", at, cert))
		s.Cale("tag", s.Busybox(), name).OK(t)
		plain := strings.Replace(name, "127.0.0.1", "localhost", 1)
		s.Cale("tag", s.Busybox(), plain).OK(t)
		s.Cale("push", "-q", plain).Exit(t, 1)
		if r := s.Cale("push", "-q", name).Exit(t, 1); !strings.Contains(r.Stderr, "authentication required") && !strings.Contains(r.Stderr, "denied") {
			t.Errorf("without a login: %s", r.Stderr)
		}
		s.Do("wrong", "cale", "login", "-u", "jo", "--password-stdin", at).Exit(t, 1)
		s.Do("secret", "cale", "login", "-u", "jo", "--password-stdin", at).OK(t)
		s.Cale("push", "-q", name).OK(t)
		s.Cale("rmi", name).OK(t)
		s.Cale("pull", "-q", s.Busybox()).OK(t)
		// The next engine serves it the same way.
		s.KillEngine()
		if out := s.Cale("registry").OK(t); !strings.Contains(out, at+"  (TLS, users of "+users+")\n") {
			t.Errorf("served: %s", out)
		}
		s.Cale("tag", s.Busybox(), name).OK(t)
		s.Cale("push", "-q", name).OK(t)
	})

	t.Run("Open", func(t *testing.T) {
		for _, args := range [][]string{{}, {"--htpasswd", filepath.Join(dir, "htpasswd")}} {
			if r := s.Cale(append([]string{"registry", "--listen", "0.0.0.0:0"}, args...)...).Exit(t, 1); !strings.Contains(r.Stderr, "is not the loopback's") {
				t.Errorf("%s", r.Stderr)
			}
		}
		at := strings.TrimSpace(s.Cale("registry", "-q", "--listen", "0.0.0.0:0", "--htpasswd", filepath.Join(dir, "htpasswd"),
			"--tls-cert", filepath.Join(dir, "cert.pem"), "--tls-key", filepath.Join(dir, "key.pem")).OK(t))
		s.Cale("registry", "--stop", at).OK(t)
		s.Cale("registry", "--listen", "127.0.0.1:0", "--htpasswd", filepath.Join(dir, "key.pem")).Exit(t, 1)
		s.Cale("registry", "--listen", "127.0.0.1:0", "--tls-cert", filepath.Join(dir, "cert.pem")).Exit(t, 1)
		s.Cale("registry", "--read-only").Exit(t, 1)
	})

	t.Run("ReadOnly", func(t *testing.T) {
		at := serve("--read-only")
		s.Cale("tag", s.Busybox(), at+"/given:1").OK(t)
		s.Cale("pull", "-q", at+"/given:1").OK(t)
		s.Cale("tag", s.Busybox(), at+"/new:2").OK(t)
		if r := s.Cale("push", "-q", at+"/other:2"); r.Code == 0 {
			t.Error("a push of nothing")
		}
		s.Cale("rmi", at+"/given:1", at+"/new:2").OK(t)
	})

	t.Run("Mirror", func(t *testing.T) {
		upstream := otherRegistry(t, "", "")
		if err := images.Push(t.Context(), upstream, "lib/busybox:1"); err != nil {
			t.Fatal(err)
		}
		at := serve("--mirror", upstream)
		// As mirrors are used: named for a registry that can't be reached.
		setting(t, s, "certs.d/far.invalid/hosts.toml", fmt.Sprintf("server = 'https://far.invalid'\n[host.'http://%s']\ncapabilities = ['pull', 'resolve']\n", at))
		if out := s.Cale("run", "--rm", "far.invalid/lib/busybox:1", "echo", "hello").OK(t); out != "hello\n" {
			t.Errorf("%q", out)
		}
		if out := s.Cale("images", "--format", "{{.Repository}}:{{.Tag}}").OK(t); !strings.Contains(out, at+"/lib/busybox:1\n") {
			t.Errorf("not among the images: %s", out)
		}
		if out := s.Cale("registry").OK(t); !strings.Contains(out, at+"  (mirror of "+upstream+")\n") {
			t.Errorf("served: %s", out)
		}
		s.Cale("registry", "--listen", "127.0.0.1:0", "--mirror", at).Exit(t, 1)
		s.Cale("registry", "--listen", "127.0.0.1:0", "--mirror", "a/b").Exit(t, 1)
	})
}
