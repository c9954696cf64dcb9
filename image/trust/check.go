package trust

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cale/image"
)

// ErrRejected is the class of images that the policy does not let in.
var ErrRejected = errors.New("rejected by the policy of signatures")

// Image is what is asked about.
type Image struct {
	Ref image.Reference // as it was asked for
	// Digests are of the manifest and, before it, of the index that named it. A
	// signature of either covers the manifest.
	Digests []image.Digest
	// Signatures finds an image's signatures. It is called only if they matter.
	// With an error it may give those that it found before.
	Signatures func(ctx context.Context, digest image.Digest) ([]Signature, error)
	// Simple finds those of simple signing, and opens them with the policy's
	// keys. Nil where that can't be done.
	Simple func(ctx context.Context, digest image.Digest, keys [][]byte) ([]Opened, error)
}

// SimpleRequest asks for the simple signing signatures of a manifest.
type SimpleRequest struct {
	Folders   []string     // of settings that say where signatures lie
	Reference string       // of the image, in full
	Digest    image.Digest // of the manifest
	Keys      [][]byte     // files of OpenPGP keys
}

// Opened is a signature of simple signing: what it says, and which key says so;
// or why it is not one that counts.
type Opened struct {
	Payload []byte
	Key     string // fingerprint
	Refused string
}

// Signed is a signature that was accepted.
type Signed struct {
	Digest    image.Digest // of what was signed
	Reference string       // that the signature names
	Key       string       // the fingerprint of the key; empty for a certificate's
	Account   string       // of the certificate; empty for a key
}

// Verdict says why an image is let in.
type Verdict struct {
	Scope  string   // of the policy: "docker.io/library", "" for all registries, "default"
	Types  []string // of the requirements, all of which are met
	Signed []Signed // one for each of them that asks for signatures
}

// Check tells whether an image may be used; if not, the error is ErrRejected
// or why it can't be told.
func (p *Policy) Check(ctx context.Context, img Image) (Verdict, error) {
	scope, list := p.required(img.Ref)
	v := Verdict{Scope: scope}
	c := checker{p: p, img: img, found: map[image.Digest][]Signature{}}
	for _, r := range list {
		s, err := c.meets(ctx, r)
		if err != nil {
			return Verdict{}, fmt.Errorf("%s: %w (scope %q): %w", img.Ref.Familiar(), ErrRejected, scope, err)
		}
		v.Types = append(v.Types, r.kind)
		if s != nil {
			v.Signed = append(v.Signed, *s)
		}
	}
	return v, nil
}

// CheckKey tells whether an image was signed with a key, whatever the policy
// says. identity is a kind of signedIdentity that needs no value; empty is the
// default.
func CheckKey(ctx context.Context, img Image, key []byte, kind string) (Verdict, error) {
	switch kind {
	case "", matchExact, matchRepoDigestOrExact, matchRepository:
	default:
		return Verdict{}, fmt.Errorf("%q is none of matchExact, matchRepoDigestOrExact and matchRepository", clip(kind))
	}
	p := &Policy{defaults: []requirement{{kind: TypeSigstore, keys: []source{{data: key}}, identity: identity{kind: kind}}}}
	return p.Check(ctx, img)
}

type checker struct {
	p     *Policy
	img   Image
	found map[image.Digest][]Signature
}

func (c *checker) signatures(ctx context.Context, d image.Digest) ([]Signature, error) {
	if s, ok := c.found[d]; ok {
		return s, nil
	}
	s, err := c.img.Signatures(ctx, d)
	if err == nil {
		c.found[d] = s
		return s, nil
	}
	return s, fmt.Errorf("its signatures can't be had: %w", err)
}

func (c *checker) meets(ctx context.Context, r requirement) (*Signed, error) {
	if r.missing != "" {
		return nil, fmt.Errorf("%s are not built yet", r.missing)
	}
	switch r.kind {
	case TypeAccept:
		return nil, nil
	case TypeReject:
		return nil, errors.New("no image from there is let in")
	case TypeSignedBy:
		return c.signedSimply(ctx, r)
	}
	return c.signed(ctx, r)
}

// signed finds a signature that meets the requirement. The reasons why others
// don't are told if none does.
func (c *checker) signed(ctx context.Context, r requirement) (*Signed, error) {
	t, err := c.p.trusted(r)
	if err != nil {
		return nil, err
	}
	var why []string
	var lacking error
	for _, d := range c.img.Digests {
		list, err := c.signatures(ctx, d)
		if err != nil {
			lacking = err
		}
		for _, s := range list {
			ok, err := t.accept(s, r, c.img.Ref, d)
			if err == nil {
				return ok, nil
			}
			if len(why) < 4 {
				why = append(why, err.Error())
			}
		}
	}
	if lacking != nil {
		return nil, lacking
	}
	return nil, unsigned(why)
}

// unsigned is the error of an image without a good signature, and why those
// that there are aren't.
func unsigned(why []string) error {
	if why == nil {
		return errors.New("it is not signed")
	}
	return errors.New("no signature is good: " + strings.Join(why, "; "))
}

// signedSimply finds a signature of simple signing that meets the requirement.
func (c *checker) signedSimply(ctx context.Context, r requirement) (*Signed, error) {
	if c.img.Simple == nil {
		return nil, errors.New("OpenPGP signatures can't be checked here")
	}
	var keys [][]byte
	for _, s := range r.keys {
		raw, err := c.p.read(s)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", s.path, err)
		}
		keys = append(keys, raw)
	}
	var why []string
	for _, d := range c.img.Digests {
		list, err := c.img.Simple(ctx, d, keys)
		if err != nil {
			return nil, fmt.Errorf("its signatures can't be had: %w", err)
		}
		for _, o := range list {
			reason := o.Refused
			if reason == "" {
				reference, err := says(simpleType, o.Payload, r, c.img.Ref, d)
				if err == nil {
					return &Signed{Digest: d, Reference: reference, Key: o.Key}, nil
				}
				reason = err.Error()
			}
			if len(why) < 4 {
				why = append(why, reason)
			}
		}
	}
	return nil, unsigned(why)
}

// trusted are the keys of a requirement, read.
type trusted struct {
	keys  []*PublicKey
	roots []byte
	logs  []*PublicKey
}

func (p *Policy) trusted(r requirement) (t trusted, err error) {
	if t.keys, err = p.readKeys(r.keys); err != nil {
		return t, err
	}
	if t.logs, err = p.readKeys(r.rekor); err != nil {
		return t, err
	}
	if r.fulcio != nil {
		t.roots, err = p.read(r.fulcio.ca)
	}
	return t, err
}

func (p *Policy) readKeys(list []source) ([]*PublicKey, error) {
	var out []*PublicKey
	for _, s := range list {
		raw, err := p.read(s)
		if err == nil {
			var k *PublicKey
			if k, err = ParsePublicKey(raw); err == nil {
				out = append(out, k)
				continue
			}
		}
		if s.path != "" {
			return nil, fmt.Errorf("key %s: %w", s.path, err)
		}
		return nil, fmt.Errorf("key: %w", err)
	}
	return out, nil
}

// accept checks one signature: first who made it, then what it says.
func (t *trusted) accept(s Signature, r requirement, ref image.Reference, d image.Digest) (*Signed, error) {
	if len(s.Payload) > MaxPayload {
		return nil, fmt.Errorf("its payload is larger than %d bytes", MaxPayload)
	}
	out := &Signed{Digest: d}
	var err error
	if r.fulcio != nil {
		out.Account, err = t.byAccount(s, r)
	} else {
		out.Key, err = t.byKey(s)
	}
	if err != nil {
		return nil, err
	}
	if out.Reference, err = says(cosignType, s.Payload, r, ref, d); err != nil {
		return nil, err
	}
	return out, nil
}

// says reads what was signed, and tells whether it is about the image; it gives
// the reference in it.
func says(kind string, payload []byte, r requirement, ref image.Reference, d image.Digest) (reference string, err error) {
	p, err := parsePayload(kind, payload)
	if err != nil {
		return "", fmt.Errorf("what it signs can't be read: %w", err)
	}
	if p.digest != d {
		return "", fmt.Errorf("it is a signature of %s", p.digest)
	}
	return p.reference, r.identity.match(ref, p.reference)
}

func (t *trusted) byKey(s Signature) (fingerprint string, err error) {
	for _, k := range t.keys {
		if !k.verify(s.Payload, s.Signature) {
			continue
		}
		if len(t.logs) > 0 {
			if _, err := logged(s.Bundle, t.logs, s, k.der()); err != nil {
				return "", err
			}
		}
		return k.Fingerprint(), nil
	}
	return "", errors.New("it was made with another key")
}

func (t *trusted) byAccount(s Signature, r requirement) (account string, err error) {
	cert, err := leaf(s.Certificate)
	if err != nil {
		return "", err
	}
	at, err := logged(s.Bundle, t.logs, s, cert.Raw)
	if err != nil {
		return "", err
	}
	k, err := r.fulcio.key(t.roots, cert, s.Chain, at)
	if err != nil {
		return "", err
	}
	if !k.verify(s.Payload, s.Signature) {
		return "", errors.New("it was made with another key than its certificate's")
	}
	return r.fulcio.email, nil
}
