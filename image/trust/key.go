package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// minRSA is the shortest RSA key that is believed, in bits.
const minRSA = 2048

// PublicKey checks signatures: ECDSA over SHA-256, RSA PKCS #1 v1.5 over
// SHA-256, or Ed25519, as cosign makes them.
type PublicKey struct{ key crypto.PublicKey }

// ParsePublicKey reads a key in PEM, of which there is one.
func ParsePublicKey(raw []byte) (*PublicKey, error) {
	b, err := onePEM(raw)
	if err != nil {
		return nil, err
	}
	var key any
	switch b.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(b.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(b.Bytes)
	default:
		return nil, fmt.Errorf("it is a %s, not a public key", strings.ToLower(clip(b.Type)))
	}
	if err != nil {
		return nil, fmt.Errorf("it is no public key: %w", err)
	}
	return newPublicKey(key)
}

func newPublicKey(key any) (*PublicKey, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return nil, fmt.Errorf("an ECDSA key of %d bits is too short", k.Curve.Params().BitSize)
		}
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return nil, fmt.Errorf("an RSA key of %d bits is too short", k.N.BitLen())
		}
	case ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("keys of type %T are not supported: ECDSA, RSA and Ed25519 are", key)
	}
	return &PublicKey{key}, nil
}

// onePEM reads the one block of a PEM text.
func onePEM(raw []byte) (*pem.Block, error) {
	b, rest := pem.Decode(raw)
	if b == nil {
		return nil, errors.New("it is not in PEM")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("something follows the first block of PEM")
	}
	return b, nil
}

// Fingerprint is the SHA-256 of the key, for people.
func (k *PublicKey) Fingerprint() string {
	sum := sha256.Sum256(k.der())
	return hex.EncodeToString(sum[:])
}

func (k *PublicKey) der() []byte {
	der, err := x509.MarshalPKIXPublicKey(k.key)
	if err != nil {
		return nil // of no kind that newPublicKey lets in
	}
	return der
}

// verify tells whether sig is the key's signature of message.
func (k *PublicKey) verify(message, sig []byte) bool {
	sum := sha256.Sum256(message)
	switch key := k.key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, sum[:], sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, sig)
	}
	return false
}

// PrivateKey makes signatures.
type PrivateKey struct{ key crypto.Signer }

// ParsePrivateKey reads a key in PEM that no passphrase protects.
func ParsePrivateKey(raw []byte) (*PrivateKey, error) {
	b, err := onePEM(raw)
	if err != nil {
		return nil, err
	}
	var key any
	switch b.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(b.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
	case "ENCRYPTED COSIGN PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("keys that a passphrase protects are not built yet; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 makes one without")
	default:
		return nil, fmt.Errorf("it is a %s, not a private key", strings.ToLower(clip(b.Type)))
	}
	if err != nil {
		return nil, fmt.Errorf("it is no private key: %w", err)
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("keys of type %T are not supported: ECDSA, RSA and Ed25519 are", key)
	}
	if _, err := newPublicKey(s.Public()); err != nil {
		return nil, err
	}
	return &PrivateKey{s}, nil
}

// Public is the key that checks what this one signs.
func (k *PrivateKey) Public() *PublicKey { return &PublicKey{k.key.Public()} }

// Sign signs a payload.
func (k *PrivateKey) Sign(payload []byte) ([]byte, error) {
	if _, ok := k.key.(ed25519.PrivateKey); ok {
		return k.key.Sign(rand.Reader, payload, crypto.Hash(0))
	}
	sum := sha256.Sum256(payload)
	return k.key.Sign(rand.Reader, sum[:], crypto.SHA256)
}
