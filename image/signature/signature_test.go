package signature

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cale/image"
	"cale/image/store"
	"cale/image/trust"
	"cale/registry/client"
	"cale/registry/server"
	"cale/test/images"
)

// fixture is a registry with one image in it, and a key.
type fixture struct {
	*testing.T
	ctx             context.Context
	c               *client.Client
	ref             image.Reference
	digest          image.Digest
	private, public []byte
	hide            string // requests whose path holds it are not found
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "cale-signature-")
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close(); os.RemoveAll(dir) })
	f := &fixture{T: t, c: client.New(client.Options{})}
	srv := httptest.NewUnstartedServer(nil)
	addr := srv.Listener.Addr().String()
	registry := server.New(st, server.Options{Domain: addr})
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.hide != "" && strings.Contains(r.URL.Path, f.hide) {
			http.NotFound(w, r)
			return
		}
		registry.ServeHTTP(w, r)
	})
	srv.Start()
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	f.ctx = ctx
	if err := images.Push(ctx, addr, "a/b:1"); err != nil {
		t.Skip(err)
	}
	f.ref = image.Reference{Domain: addr, Path: "a/b", Tag: "1"}
	d, err := f.c.Resolve(ctx, f.ref)
	if err != nil {
		t.Fatal(err)
	}
	f.digest = d.Digest
	f.private, f.public = newKey(t)
	return f
}

func newKey(t *testing.T) (private, public []byte) {
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
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})
}

func (f *fixture) sign(private []byte) trust.Signature {
	f.Helper()
	k, err := trust.ParsePrivateKey(private)
	if err != nil {
		f.Fatal(err)
	}
	p, err := trust.Payload(f.digest, f.ref.String())
	if err != nil {
		f.Fatal(err)
	}
	sig, err := k.Sign(p)
	if err != nil {
		f.Fatal(err)
	}
	return trust.Signature{Payload: p, Signature: sig}
}

func (f *fixture) check(public []byte) error {
	_, err := trust.CheckKey(f.ctx, trust.Image{Ref: f.ref, Digests: []image.Digest{f.digest}, Signatures: func(ctx context.Context, d image.Digest) ([]trust.Signature, error) {
		return Fetch(ctx, f.c, f.ref, d)
	}}, public, "")
	return err
}

func TestAttach(t *testing.T) {
	f := newFixture(t)
	if err := f.check(f.public); !errors.Is(err, trust.ErrRejected) || !strings.Contains(err.Error(), "it is not signed") {
		t.Error(err)
	}
	private, public := newKey(t)
	s := f.sign(f.private)
	for _, s := range []trust.Signature{s, f.sign(private), s} {
		if err := Attach(f.ctx, f.c, f.ref, f.digest, s); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range [][]byte{f.public, public} {
		if err := f.check(key); err != nil {
			t.Error(err)
		}
	}
	if list, err := Fetch(f.ctx, f.c, f.ref, f.digest); err != nil || len(list) != 2 {
		t.Errorf("%d signatures, %v", len(list), err)
	}
	_, other := newKey(t)
	if err := f.check(other); !errors.Is(err, trust.ErrRejected) {
		t.Error(err)
	}
}

// Signatures that refer to the image, with the registry's API for that and
// with the tag that stands in for it.
func TestReferrers(t *testing.T) {
	f := newFixture(t)
	s := f.sign(f.private)
	if err := Attach(f.ctx, f.c, f.ref, f.digest, s); err != nil {
		t.Fatal(err)
	}
	raw, mt, err := f.c.Manifest(f.ctx, f.ref.WithTag(tag(f.digest)), image.Descriptor{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.ParseManifest(mt, raw)
	if err != nil {
		t.Fatal(err)
	}
	m.ArtifactType = artifactType
	m.Subject = &image.Descriptor{MediaType: image.MediaTypeManifest, Digest: f.digest, Size: 1}
	if raw, err = m.Encode(); err != nil {
		t.Fatal(err)
	}
	d := image.Descriptor{MediaType: mt, Digest: image.FromBytes(raw), Size: int64(len(raw)), ArtifactType: artifactType}
	if err := f.c.PushManifest(f.ctx, f.ref.WithDigest(d.Digest), mt, raw); err != nil {
		t.Fatal(err)
	}
	f.hide = tag(f.digest)
	if err := f.check(f.public); err != nil {
		t.Error(err)
	}
	ix := image.Index{Manifests: []image.Descriptor{{MediaType: mt, Digest: f.digest, Size: 1, ArtifactType: "other"}, d}}
	if raw, err = ix.Encode(); err != nil {
		t.Fatal(err)
	}
	if err := f.c.PushManifest(f.ctx, f.ref.WithTag(strings.TrimSuffix(tag(f.digest), ".sig")), ix.MediaType, raw); err != nil {
		t.Fatal(err)
	}
	f.hide = "/referrers/"
	if list, err := Fetch(f.ctx, f.c, f.ref, f.digest); err != nil || len(list) != 2 {
		t.Errorf("%d signatures, %v", len(list), err)
	}
}

// A registry that gives out other bytes than it says.
func TestTamperedPayload(t *testing.T) {
	f := newFixture(t)
	s := f.sign(f.private)
	if err := Attach(f.ctx, f.c, f.ref, f.digest, s); err != nil {
		t.Fatal(err)
	}
	f.hide = "/blobs/" + image.FromBytes(s.Payload).String()
	if err := f.check(f.public); !errors.Is(err, trust.ErrRejected) || !errors.Is(err, client.ErrNotFound) {
		t.Error(err)
	}
	f.hide = ""
	// The same signature in front of other words.
	s.Payload = bytes.Replace(s.Payload, []byte("/a/b:1"), []byte("/a/b:2"), 1)
	f.digest = image.FromBytes([]byte("another manifest"))
	if err := Attach(f.ctx, f.c, f.ref, f.digest, s); err != nil {
		t.Fatal(err)
	}
	if err := f.check(f.public); !errors.Is(err, trust.ErrRejected) || !strings.Contains(err.Error(), "another key") {
		t.Error(err)
	}
}

// skopeo takes our signatures for what they are.
func TestSkopeo(t *testing.T) {
	bin, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	f := newFixture(t)
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("key.pub", string(f.public))
	policy, _ := json.Marshal(map[string]any{"default": []any{map[string]any{"type": "sigstoreSigned", "keyPath": filepath.Join(dir, "key.pub")}}})
	write("policy.json", string(policy))
	write("sigstore.yaml", "docker:\n  "+f.ref.Domain+":\n    use-sigstore-attachments: true\n")
	take := func() error {
		cmd := exec.CommandContext(f.ctx, bin, "--policy", filepath.Join(dir, "policy.json"), "--registries.d", dir,
			"copy", "--src-tls-verify=false", "docker://"+f.ref.String(), "dir:"+filepath.Join(dir, "out"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return errors.New(string(out))
		}
		return nil
	}
	if err := take(); err == nil || !strings.Contains(err.Error(), "signature") {
		t.Skipf("this skopeo knows no such signatures: %v", err)
	}
	private, _ := newKey(t)
	if err := Attach(f.ctx, f.c, f.ref, f.digest, f.sign(private)); err != nil {
		t.Fatal(err)
	}
	if err := take(); err == nil {
		t.Error("another key's signature is enough")
	} else if strings.Contains(err.Error(), "sigstore disabled") {
		t.Skip("this skopeo was built without such signatures")
	}
	if err := Attach(f.ctx, f.c, f.ref, f.digest, f.sign(f.private)); err != nil {
		t.Fatal(err)
	}
	if err := take(); err != nil {
		t.Error(err)
	}
}
