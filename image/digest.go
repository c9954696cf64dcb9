// Package image holds the documents container images are made of: digests,
// references, descriptors, manifests, indexes and configurations, as written
// in the OCI image specification 1.1 and in Docker's schema 2. Raw bytes
// travel next to each parsed form, so a digest never depends on re-encoding.
package image

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
)

// Digest names content by its hash. The zero value is no digest; every other
// value is well formed, because only this package makes them: a Digest can go
// into a path or a request without another check.
type Digest struct {
	s string // "sha256:<64 lower hex>" or "sha512:<128 lower hex>"
}

// ErrDigest is the class of every digest that is not well formed.
var ErrDigest = errors.New("invalid digest")

// ParseDigest accepts sha256 and sha512 in the canonical lower case form only.
func ParseDigest(s string) (Digest, error) {
	want := 0
	var encoded string
	switch {
	case strings.HasPrefix(s, "sha256:"):
		encoded, want = s[7:], 2*sha256.Size
	case strings.HasPrefix(s, "sha512:"):
		encoded, want = s[7:], 2*sha512.Size
	default:
		return Digest{}, fmt.Errorf("%w %q: want sha256:… or sha512:…", ErrDigest, clip(s))
	}
	if len(encoded) != want {
		return Digest{}, fmt.Errorf("%w %q: want %d hexadecimal digits, have %d", ErrDigest, clip(s), want, len(encoded))
	}
	for i := range len(encoded) {
		if c := encoded[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return Digest{}, fmt.Errorf("%w %q: only lower case hexadecimal digits are allowed", ErrDigest, clip(s))
		}
	}
	return Digest{strings.Clone(s)}, nil
}

// FromBytes is the sha256 digest of b.
func FromBytes(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest{"sha256:" + hex.EncodeToString(sum[:])}
}

// FromHash is the digest held by a hash that Digest.Hash or sha256.New or
// sha512.New made. Any other hash is a programming error and panics.
func FromHash(h hash.Hash) Digest {
	sum := h.Sum(nil)
	switch len(sum) {
	case sha256.Size:
		return Digest{"sha256:" + hex.EncodeToString(sum)}
	case sha512.Size:
		return Digest{"sha512:" + hex.EncodeToString(sum)}
	}
	panic("image: digest of an unknown hash")
}

// String is the digest as written in documents, or "" for the zero value.
func (d Digest) String() string { return d.s }

// IsZero tells that d is no digest.
func (d Digest) IsZero() bool { return d.s == "" }

// Algorithm is "sha256" or "sha512", or "" for the zero value.
func (d Digest) Algorithm() string {
	if d.s == "" {
		return ""
	}
	return d.s[:6]
}

// Encoded is the hexadecimal part.
func (d Digest) Encoded() string {
	if d.s == "" {
		return ""
	}
	return d.s[7:]
}

// Short is the first 12 hexadecimal digits, for people.
func (d Digest) Short() string {
	if d.s == "" {
		return ""
	}
	return d.s[7:19]
}

// Hash is a fresh hash of the digest's algorithm.
func (d Digest) Hash() hash.Hash {
	if d.Algorithm() == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}

// MarshalText writes the digest; the zero value is written as "".
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.s), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	v, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// clip keeps foreign text in error messages short.
func clip(s string) string {
	if len(s) > 160 {
		return s[:160] + "…"
	}
	return s
}
