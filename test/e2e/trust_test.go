package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/stack"
)

// keyPair writes a private key and its public half.
func keyPair(t *testing.T) (private, public string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	private, public = filepath.Join(dir, "key"), filepath.Join(dir, "key.pub")
	for name, b := range map[string]*pem.Block{private: {Type: "PRIVATE KEY", Bytes: der}, public: {Type: "PUBLIC KEY", Bytes: pub}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return private, public
}

// TestTrust: what the policy does not let in is not pulled by anybody, and what is signed as it wants is.
func TestTrust(t *testing.T) {
	s := stack.New(t)
	image := s.Busybox()
	private, public := keyPair(t)
	otherPrivate, other := keyPair(t)
	// pull by way of another name of the registry: by its own the image is here already.
	mirrored := "signed.invalid/busybox"
	setting(t, s, "certs.d/signed.invalid/hosts.toml", "server = 'http://"+s.Registry+"'\n")
	refused := func(why string, args ...string) {
		t.Helper()
		if r := s.Cale(args...); r.Code == 0 || !strings.Contains(r.Stderr, why) {
			t.Errorf("%q: %d, %q", args, r.Code, r.Stderr)
		}
		if out := s.Cale("images", "-q", mirrored).OK(t); out != "" {
			t.Errorf("%q: the image is here", args)
		}
	}
	s.Cale("trust", "set", "-f", public, "signed.invalid").OK(t)
	if out := s.Cale("trust", "show").OK(t); !strings.Contains(out, "signed.invalid") || !strings.Contains(out, "insecureAcceptAnything") {
		t.Errorf("%q", out)
	}
	refused("it is not signed", "pull", mirrored)
	refused("it is not signed", "run", "--rm", mirrored, "true")
	refused("it is not signed", "create", mirrored)
	if r := s.Do("FROM "+mirrored+"\nRUN true\n", "cale", "build", "-"); r.Code == 0 || !strings.Contains(r.Stderr, "it is not signed") {
		t.Errorf("build: %d, %q", r.Code, r.Stderr)
	}
	for _, docker := range clients(t)[1:] {
		if r := s.Do("", docker, "pull", mirrored); r.Code == 0 || !strings.Contains(r.Stderr, "it is not signed") {
			t.Errorf("%s: %d, %q", docker, r.Code, r.Stderr)
		}
	}
	// The wrong key, and the wrong name.
	s.Cale("image", "sign", "--key", otherPrivate, "--sign-identity", mirrored+":latest", image).OK(t)
	refused("another key", "pull", mirrored)
	s.Cale("image", "sign", "--key", private, image).OK(t)
	refused("it is a signature for "+image, "pull", mirrored)
	refused("it is a signature for "+image, "image", "verify", mirrored)
	if out := s.Cale("image", "verify", "--key", public, image).OK(t); !strings.Contains(out, "Signed as "+image+":latest by key") {
		t.Errorf("%q", out)
	}
	s.Cale("image", "sign", "--key", private, "--sign-identity", mirrored+":latest", image).OK(t)
	s.Cale("image", "verify", mirrored).OK(t)
	s.Cale("image", "verify", "--key", other, mirrored).OK(t)
	s.Do("FROM "+mirrored+"\nRUN true\n", "cale", "build", "-").OK(t)
	if out := s.Cale("run", "--rm", mirrored, "echo", "hello").OK(t); out != "hello\n" {
		t.Errorf("%q", out)
	}
	s.Cale("rmi", mirrored).OK(t)

	s.Cale("trust", "set", "-t", "reject", "signed.invalid/busybox").OK(t)
	refused("no image from there is let in", "pull", mirrored)
	s.Cale("trust", "rm", "signed.invalid/busybox").OK(t)
	s.Cale("pull", mirrored).OK(t)
	s.Cale("rmi", mirrored).OK(t)

	setting(t, s, "policy.json", "{}")
	refused("policy.json: it has no default", "pull", mirrored)
	refused("policy.json: it has no default", "trust", "set", "-t", "accept", "default")
}

// TestTrustGPG: simple signing, by gpg and skopeo.
func TestTrustGPG(t *testing.T) {
	for _, tool := range []string{"gpg", "skopeo"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	s := stack.New(t)
	dir, err := os.MkdirTemp("", "gpg") // sockets want short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", dir, "--kill", "all").Run()
		os.RemoveAll(dir)
	})
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "GNUPGHOME="+dir)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v", name, args, err)
		}
		return string(out)
	}
	gpg := []string{"--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""}
	run("gpg", append(gpg, "--quick-generate-key", "tester@example.com", "rsa2048", "sign", "1d")...)
	run("gpg", append(gpg, "--output", filepath.Join(dir, "key.gpg"), "--export")...)
	_, fingerprint, _ := strings.Cut(run("gpg", "--list-keys", "--with-colons"), "\nfpr:::::::::")
	fingerprint, _, _ = strings.Cut(fingerprint, ":")

	name := "simple.invalid/busybox"
	setting(t, s, "certs.d/simple.invalid/hosts.toml", "server = 'http://"+s.Registry+"'\n")
	setting(t, s, "registries.d/simple.yaml", "docker:\n  simple.invalid:\n    lookaside: file://"+dir+"/signatures\n")
	setting(t, s, "policy.json", `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"simple.invalid":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"`+dir+`/key.gpg"}]}}}`)
	refused := func(why string) {
		t.Helper()
		if r := s.Cale("pull", "-q", name).Exit(t, 1); !strings.Contains(r.Stderr, why) {
			t.Errorf("without %q: %s", why, r.Stderr)
		}
	}
	refused("it is not signed")
	manifest := run("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+s.Registry+"/busybox:latest")
	if err := os.WriteFile(filepath.Join(dir, "manifest"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	digest := strings.TrimSpace(run("skopeo", "manifest-digest", filepath.Join(dir, "manifest")))
	place := filepath.Join(dir, "signatures", "busybox@"+strings.Replace(digest, ":", "=", 1))
	if err := os.MkdirAll(place, 0o755); err != nil {
		t.Fatal(err)
	}
	signed := func(n, as string) {
		run("skopeo", "standalone-sign", "-o", filepath.Join(place, "signature-"+n), filepath.Join(dir, "manifest"), as, fingerprint)
	}
	signed("1", "elsewhere.invalid/busybox:latest")
	refused("it is a signature for elsewhere.invalid/busybox:latest")
	signed("2", name+":latest")
	s.Cale("pull", "-q", name).OK(t)
	if out := s.Cale("image", "verify", name).OK(t); !strings.Contains(out, fingerprint) {
		t.Errorf("without %s: %s", fingerprint, out)
	}
	s.Cale("rmi", name).OK(t)
	// The same by the command line.
	s.Cale("trust", "rm", "simple.invalid").OK(t)
	s.Cale("trust", "set", "-t", "signedBy", "-f", filepath.Join(dir, "key.gpg"), "simple.invalid/busybox").OK(t)
	if out := s.Cale("trust", "show").OK(t); !strings.Contains(out, "signedBy") || !strings.Contains(out, "OpenPGP keys") {
		t.Errorf("%s", out)
	}
	s.Cale("pull", "-q", name).OK(t)
	s.Cale("rmi", name).OK(t)
	if err := os.RemoveAll(place); err != nil {
		t.Fatal(err)
	}
	refused("it is not signed")
}
