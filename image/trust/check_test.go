package trust

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/image"
)

func none(context.Context, image.Digest) ([]Signature, error) { return nil, nil }

// pair is a key in PEM, both halves.
func pair(t testing.TB, key crypto.Signer) (private, public []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})
}

func newEC(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign makes a signature as Sign and Payload do together.
func sign(t testing.TB, private []byte, d image.Digest, reference string) Signature {
	t.Helper()
	k, err := ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Payload(d, reference)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := k.Sign(p)
	if err != nil {
		t.Fatal(err)
	}
	return Signature{Payload: p, Signature: sig}
}

func keyed(public []byte) string {
	return `{"type":"sigstoreSigned","keyData":"` + base64.StdEncoding.EncodeToString(public) + `"}`
}

func check(t testing.TB, policy string, img Image) (Verdict, error) {
	t.Helper()
	p, err := Parse([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	return p.Check(context.Background(), img)
}

func TestKeys(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := image.FromBytes([]byte("manifest"))
	for name, key := range map[string]crypto.Signer{"P-256": newEC(t), "P-384": p384, "RSA": rsaKey, "Ed25519": ed} {
		private, public := pair(t, key)
		s := sign(t, private, d, "a.b/c:1")
		img := Image{Ref: reference(t, "a.b/c:1"), Digests: []image.Digest{d}, Signatures: func(context.Context, image.Digest) ([]Signature, error) {
			return []Signature{s}, nil
		}}
		v, err := check(t, with(keyed(public)), img)
		if err != nil || len(v.Signed) != 1 || v.Signed[0].Reference != "a.b/c:1" || v.Signed[0].Key == "" || v.Signed[0].Digest != d {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		s.Signature[len(s.Signature)-1] ^= 1
		if _, err := check(t, with(keyed(public)), img); !errors.Is(err, ErrRejected) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for text, want := range map[string]string{
		"": "not in PEM",
		"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n": "a certificate, not",
		"-----BEGIN PUBLIC KEY-----\naGVsbG8=\n-----END PUBLIC KEY-----\n":   "no public key",
		"-----BEGIN PUBLIC KEY-----\naGVsbG8=\n-----END PUBLIC KEY-----\nx":  "something follows",
	} {
		if _, err := ParsePublicKey([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ParsePrivateKey([]byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n")); err == nil || !strings.Contains(err.Error(), "not built yet") {
		t.Error(err)
	}
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, public := pair(t, weak); true {
		if _, err := ParsePublicKey(public); err == nil || !strings.Contains(err.Error(), "too short") {
			t.Error(err)
		}
	}
}

// TestSigned: what must not be taken for a signature of an image.
func TestSigned(t *testing.T) {
	private, public := pair(t, newEC(t))
	otherPrivate, otherPublic := pair(t, newEC(t))
	index, manifest, other := image.FromBytes([]byte("index")), image.FromBytes([]byte("manifest")), image.FromBytes([]byte("other"))
	good := sign(t, private, manifest, "a.b/c:1")
	raw := func(payload string) Signature {
		k, _ := ParsePrivateKey(private)
		sig, err := k.Sign([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		return Signature{Payload: []byte(payload), Signature: sig}
	}
	text := string(good.Payload)
	tampered := good
	tampered.Payload = []byte(strings.Replace(text, "a.b/c:1", "a.b/c:2", 1))
	for _, c := range []struct {
		name string
		list []Signature
		want string // "" is let in
	}{
		{"good", []Signature{good}, ""},
		{"missing", nil, "it is not signed"},
		{"wrong key", []Signature{sign(t, otherPrivate, manifest, "a.b/c:1")}, "another key"},
		{"tampered", []Signature{tampered}, "another key"},
		{"other image", []Signature{sign(t, private, other, "a.b/c:1")}, "a signature of " + other.String()},
		{"other tag", []Signature{sign(t, private, manifest, "a.b/c:2")}, "a signature for a.b/c:2"},
		{"other repository", []Signature{sign(t, private, manifest, "a.b/d:1")}, "a signature for a.b/d:1"},
		{"no tag", []Signature{sign(t, private, manifest, "a.b/c")}, "matchRepository accepts that"},
		{"bad ones first", []Signature{sign(t, otherPrivate, manifest, "a.b/c:1"), sign(t, private, other, "a.b/c:1"), good}, ""},
		{"no payload", []Signature{raw("")}, "can't be read"},
		{"other type", []Signature{raw(strings.Replace(text, cosignType, "atomic container signature", 1))}, "can't be read"},
		{"unknown condition", []Signature{raw(strings.Replace(text, `"critical":{`, `"critical":{"until":1,`, 1))}, "can't be read"},
		{"two digests", []Signature{raw(strings.Replace(text, `"docker-manifest-digest"`, `"docker-manifest-digest":"`+manifest.String()+`","docker-manifest-digest"`, 1))}, "can't be read"},
		{"trailing", []Signature{raw(text + "{}")}, "can't be read"},
		{"large", []Signature{raw(strings.Repeat(" ", MaxPayload) + text)}, "larger than"},
	} {
		img := Image{Ref: reference(t, "a.b/c:1"), Digests: []image.Digest{index, manifest}, Signatures: func(_ context.Context, d image.Digest) ([]Signature, error) {
			if d == manifest {
				return c.list, nil
			}
			return nil, nil
		}}
		_, err := check(t, with(keyed(public)), img)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if !errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", c.name, err)
		}
	}

	img := Image{Ref: reference(t, "a.b/c:1"), Digests: []image.Digest{manifest}, Signatures: func(context.Context, image.Digest) ([]Signature, error) {
		return []Signature{good}, nil
	}}
	both := with(keyed(public) + `,` + keyed(otherPublic))
	if _, err := check(t, both, img); !errors.Is(err, ErrRejected) {
		t.Errorf("one of two requirements is enough: %v", err)
	}
	either := with(`{"type":"sigstoreSigned","keyDatas":["` + base64.StdEncoding.EncodeToString(otherPublic) + `","` + base64.StdEncoding.EncodeToString(public) + `"]}`)
	if _, err := check(t, either, img); err != nil {
		t.Error(err)
	}
	// A signature of the index is one of what it names.
	good = sign(t, private, index, "a.b/c:1")
	img.Digests = []image.Digest{index, manifest}
	if v, err := check(t, with(keyed(public)), img); err != nil || v.Signed[0].Digest != index {
		t.Errorf("%+v, %v", v, err)
	}
	img.Signatures = func(context.Context, image.Digest) ([]Signature, error) { return nil, errors.New("down") }
	if _, err := check(t, with(keyed(public)), img); err == nil || !strings.Contains(err.Error(), "can't be had: down") {
		t.Error(err)
	}
	for _, policy := range []string{
		with(`{"type":"signedBy","keyType":"X509Certificates","keyPath":"/x"}`),
		with(`{"type":"sigstoreSigned","pki":{}}`),
	} {
		if _, err := check(t, policy, img); !errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), "not built yet") {
			t.Error(err)
		}
	}
	if _, err := CheckKey(context.Background(), img, public, "exactReference"); err == nil {
		t.Error("took an identity without its value")
	}
}

// Simple signing: the message is opened by the keys of the policy, and says what it signs.
func TestSignedBy(t *testing.T) {
	d := image.FromBytes([]byte("manifest"))
	p, err := Payload(d, "a.b/c:1")
	if err != nil {
		t.Fatal(err)
	}
	say := strings.Replace(string(p), cosignType, simpleType, 1)
	policy := `{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"` + base64.StdEncoding.EncodeToString([]byte("the key")) + `"}]}`
	img := Image{Ref: image.Reference{Domain: "a.b", Path: "c", Tag: "1"}, Digests: []image.Digest{d}, Signatures: none}
	opened := func(keys [][]byte, message string) Opened {
		text, ok := strings.CutPrefix(message, "signed:")
		if !ok || len(keys) != 1 || string(keys[0]) != "the key" {
			return Opened{Refused: "not by that key"}
		}
		return Opened{Payload: []byte(text), Key: "FINGERPRINT"}
	}
	for _, c := range []struct{ message, refused string }{
		{"signed:" + say, ""},
		{"unsigned:" + say, "not by that key"},
		{"signed:" + string(p), "not a"}, // what cosign signs is not what gpg does
		{"signed:" + strings.Replace(say, d.String(), image.FromBytes(nil).String(), 1), "it is a signature of"},
		{"signed:" + strings.Replace(say, "a.b/c:1", "a.b/c:2", 1), "it is a signature for"},
		{"", "it is not signed"},
	} {
		img.Simple = func(_ context.Context, of image.Digest, keys [][]byte) ([]Opened, error) {
			if c.message == "" || of != d {
				return nil, nil
			}
			return []Opened{opened(keys, c.message)}, nil
		}
		v, err := check(t, policy, img)
		if c.refused == "" {
			if err != nil || v.Signed[0].Key != "FINGERPRINT" || v.Signed[0].Reference != "a.b/c:1" {
				t.Errorf("%+v, %v", v, err)
			}
		} else if !errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%q: %v", c.refused, err)
		}
	}
	img.Simple = nil
	if _, err := check(t, policy, img); !errors.Is(err, ErrRejected) {
		t.Error(err)
	}
}

// Keys in files are read when they are needed, from the policy's directory.
func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	private, public := pair(t, newEC(t))
	d := image.FromBytes(nil)
	img := Image{Ref: reference(t, "a.b/c:1"), Digests: []image.Digest{d}, Signatures: func(context.Context, image.Digest) ([]Signature, error) {
		return []Signature{sign(t, private, d, "a.b/c:1")}, nil
	}}
	os.WriteFile(filepath.Join(dir, File), []byte(with(`{"type":"sigstoreSigned","keyPaths":["a.pub","`+dir+`/b.pub"]}`)), 0o600)
	os.WriteFile(filepath.Join(dir, "a.pub"), public, 0o600)
	p, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Check(context.Background(), img); !errors.Is(err, ErrRejected) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing key is passed over: %v", err)
	}
	os.WriteFile(filepath.Join(dir, "b.pub"), public, 0o600)
	if _, err := p.Check(context.Background(), img); err != nil {
		t.Error(err)
	}
}

func FuzzPayload(f *testing.F) {
	p, err := Payload(image.FromBytes(nil), "a.b/c:1")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Add([]byte(`{"critical":{"identity":{"docker-reference":"index.docker.io/a/b"},"image":{"docker-manifest-digest":"` + image.FromBytes(nil).String() + `"},"type":"cosign container image signature"},"optional":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := parsePayload(cosignType, raw)
		if err == nil && (p.digest.IsZero() || p.reference == "" || !strings.Contains(string(raw), p.digest.Encoded()[:8]) && !strings.Contains(string(raw), `\`)) {
			t.Errorf("%+v", p)
		}
		_, _ = logged(raw, nil, Signature{}, nil)
		_ = sameEntry(raw, Signature{}, nil)
		_ = fmt.Sprint(err)
	})
}
