package trust

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"cale/image"
)

// sigstore is an authority and a log of a test's own.
type sigstore struct {
	t      testing.TB
	caKey  crypto.Signer
	ca     *x509.Certificate
	logKey crypto.Signer
}

func newSigstore(t testing.TB) *sigstore {
	s := &sigstore{t: t, caKey: newEC(t), logKey: newEC(t)}
	s.ca = s.certificate(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour),
	}, nil, s.caKey.Public())
	return s
}

func (s *sigstore) certificate(c *x509.Certificate, parent *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	s.t.Helper()
	if parent == nil {
		parent = c
	}
	c.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, s.caKey)
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func inPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// leaf is a certificate that was good for ten minutes around at.
func (s *sigstore) leaf(key crypto.PublicKey, email, issuer string, at time.Time) *x509.Certificate {
	v2, _ := asn1.MarshalWithParams(issuer, "utf8")
	return s.certificate(&x509.Certificate{
		NotBefore: at.Add(-time.Minute), NotAfter: at.Add(9 * time.Minute), EmailAddresses: []string{email},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: oidIssuer, Value: []byte(issuer)}, {Id: oidIssuerV2, Value: v2}},
	}, s.ca, key)
}

// enter notes a signature in the log as of a time.
func (s *sigstore) enter(sig Signature, signer []byte, at time.Time) []byte {
	s.t.Helper()
	sum := sha256.Sum256(sig.Payload)
	body, err := json.Marshal(map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
		"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}},
		"signature": map[string]any{"content": sig.Signature, "publicKey": map[string]any{"content": signer}},
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	id := sha256.Sum256((&PublicKey{s.logKey.Public()}).der())
	payload := fmt.Sprintf(`{"body":%q,"integratedTime":%d,"logID":%q,"logIndex":7}`, base64.StdEncoding.EncodeToString(body), at.Unix(), hex.EncodeToString(id[:]))
	set, err := (&PrivateKey{s.logKey}).Sign([]byte(payload))
	if err != nil {
		s.t.Fatal(err)
	}
	return fmt.Appendf(nil, `{"SignedEntryTimestamp":%q,"Payload":%s}`, base64.StdEncoding.EncodeToString(set), payload)
}

func (s *sigstore) policy(email, issuer string) string {
	_, logKey := pair(s.t, s.logKey)
	return with(fmt.Sprintf(`{"type":"sigstoreSigned","fulcio":{"caData":%q,"oidcIssuer":%q,"subjectEmail":%q},"rekorPublicKeyData":%q}`,
		base64.StdEncoding.EncodeToString(inPEM("CERTIFICATE", s.ca.Raw)), issuer, email, base64.StdEncoding.EncodeToString(logKey)))
}

// TestKeyless: a certificate that was good when the log took the signature in,
// and everything that must not pass for it.
func TestKeyless(t *testing.T) {
	s, foreign := newSigstore(t), newSigstore(t)
	const email, issuer = "joe@example.com", "https://login.example.com"
	key := newEC(t)
	private, _ := pair(t, key)
	d := image.FromBytes([]byte("manifest"))
	then := time.Now().Add(-24 * time.Hour)
	make := func(cert *x509.Certificate, log *sigstore, at time.Time) Signature {
		sig := sign(t, private, d, "a.b/c:1")
		sig.Certificate = inPEM("CERTIFICATE", cert.Raw)
		sig.Bundle = log.enter(sig, sig.Certificate, at)
		return sig
	}
	good := make(s.leaf(key.Public(), email, issuer, then), s, then)
	change := func(f func(*Signature)) Signature {
		sig := good
		f(&sig)
		return sig
	}
	another := sign(t, private, d, "a.b/c:1")
	for _, c := range []struct {
		name string
		sig  Signature
		want string
	}{
		{"good", good, ""},
		{"no certificate", change(func(s *Signature) { s.Certificate = nil }), "no certificate"},
		{"no entry", change(func(s *Signature) { s.Bundle = nil }), "no entry of a log"},
		{"another authority", make(foreign.leaf(key.Public(), email, issuer, then), s, then), "certificate"},
		{"another log", make(s.leaf(key.Public(), email, issuer, then), foreign, then), "no log that is trusted"},
		{"after the certificate ended", make(s.leaf(key.Public(), email, issuer, then), s, then.Add(time.Hour)), "expired"},
		{"another account", make(s.leaf(key.Public(), "eve@example.com", issuer, then), s, then), "signed by eve@example.com"},
		{"another provider", make(s.leaf(key.Public(), email, "https://evil.example.com", then), s, then), "an account of https://evil.example.com"},
		{"another key", make(s.leaf(newEC(t).Public(), email, issuer, then), s, then), "another key than its certificate's"},
		{"entry of another signature", change(func(s *Signature) { s.Signature = another.Signature }), "of another signature"},
		{"entry of another payload", change(func(s *Signature) { s.Payload = append([]byte(" "), s.Payload...) }), "of another payload"},
		{"time changed", change(func(sig *Signature) {
			sig.Bundle = []byte(strings.Replace(string(good.Bundle), `"integratedTime":1`, `"integratedTime":2`, 1))
		}), "no log that is trusted"},
		{"no bundle", change(func(sig *Signature) { sig.Bundle = []byte("{}") }), "the log's entry"},
	} {
		img := Image{Ref: reference(t, "a.b/c:1"), Digests: []image.Digest{d}, Signatures: func(context.Context, image.Digest) ([]Signature, error) {
			return []Signature{c.sig}, nil
		}}
		v, err := check(t, s.policy(email, issuer), img)
		if c.want == "" {
			if err != nil || v.Signed[0].Account != email {
				t.Errorf("%s: %+v, %v", c.name, v, err)
			}
			continue
		}
		if !errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestLoggedKey: a key's signature that must be in a log.
func TestLoggedKey(t *testing.T) {
	s := newSigstore(t)
	private, public := pair(t, newEC(t))
	_, logKey := pair(t, s.logKey)
	d := image.FromBytes(nil)
	sig := sign(t, private, d, "a.b/c:1")
	img := Image{Ref: reference(t, "a.b/c:1"), Digests: []image.Digest{d}, Signatures: func(context.Context, image.Digest) ([]Signature, error) {
		return []Signature{sig}, nil
	}}
	policy := with(`{"type":"sigstoreSigned","keyData":"` + base64.StdEncoding.EncodeToString(public) + `","rekorPublicKeyData":"` + base64.StdEncoding.EncodeToString(logKey) + `"}`)
	if _, err := check(t, policy, img); !errors.Is(err, ErrRejected) {
		t.Errorf("let in although no log has it: %v", err)
	}
	sig.Bundle = s.enter(sig, public, time.Now())
	if _, err := check(t, policy, img); err != nil {
		t.Error(err)
	}
	_, other := pair(t, newEC(t))
	sig.Bundle = s.enter(sig, other, time.Now())
	if _, err := check(t, policy, img); err == nil || !strings.Contains(err.Error(), "of another key") {
		t.Error(err)
	}
}
