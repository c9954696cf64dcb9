package trust

import (
	"encoding/json"
	"errors"
	"fmt"

	"cale/image"
)

// MaxPayload bounds a signature's payload, in bytes.
const MaxPayload = 256 << 10

// What is signed is called by cosign, and by those who sign with OpenPGP.
const (
	cosignType = "cosign container image signature"
	simpleType = "atomic container signature"
)

// Signature is one signature of an image, as it was found: nothing of it can
// be believed yet.
type Signature struct {
	Payload     []byte // what was signed
	Signature   []byte // of the payload
	Certificate []byte // PEM; of who signed, if without a key of their own
	Chain       []byte // PEM; of the certificate
	Bundle      []byte // JSON; that the log knows the signature
}

// payload is what a signature says.
type payload struct {
	digest    image.Digest
	reference string
}

// parsePayload reads a payload of a kind, of which the signature must have been checked
// before. Keys that are unknown where it matters make it another kind of
// statement.
func parsePayload(kind string, raw []byte) (payload, error) {
	var p payload
	if len(raw) > MaxPayload {
		return p, fmt.Errorf("it is larger than %d bytes", MaxPayload)
	}
	top, err := object(raw, "critical", "optional")
	if err != nil {
		return p, err
	}
	critical, err := object(top["critical"], "type", "image", "identity")
	if err != nil {
		return p, fmt.Errorf("critical: %w", err)
	}
	if s, err := text(critical, "type"); err != nil || s != kind {
		return p, fmt.Errorf("it is a %q, not a %q", clip(s), kind)
	}
	img, err := object(critical["image"], "docker-manifest-digest")
	if err != nil {
		return p, fmt.Errorf("image: %w", err)
	}
	digest, err := text(img, "docker-manifest-digest")
	if err == nil {
		p.digest, err = image.ParseDigest(digest)
	}
	if err != nil {
		return p, fmt.Errorf("image: %w", err)
	}
	identity, err := object(critical["identity"], "docker-reference")
	if err != nil {
		return p, fmt.Errorf("identity: %w", err)
	}
	if p.reference, err = text(identity, "docker-reference"); err != nil {
		return p, fmt.Errorf("identity: %w", err)
	}
	if p.reference == "" {
		return p, errors.New("identity: it names no image")
	}
	if o := top["optional"]; o != nil {
		var optional map[string]json.RawMessage
		if err := json.Unmarshal(o, &optional); err != nil {
			return p, errors.New("optional is no object")
		}
	}
	return p, nil
}

// Payload is what to sign to say that the image of a digest may be used by the
// name of reference.
func Payload(digest image.Digest, reference string) ([]byte, error) {
	if digest.IsZero() {
		return nil, errors.New("there is no digest to sign")
	}
	if _, err := parseSigned(reference); err != nil {
		return nil, err
	}
	var p struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest image.Digest `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
		Optional map[string]any `json:"optional"`
	}
	p.Critical.Identity.Reference = reference
	p.Critical.Image.Digest = digest
	p.Critical.Type = cosignType
	return json.Marshal(p)
}

// SignDigest makes a payload and signs it.
func SignDigest(k *PrivateKey, digest, reference string) (payload, signature []byte, err error) {
	d, err := image.ParseDigest(digest)
	if err != nil {
		return nil, nil, err
	}
	if payload, err = Payload(d, reference); err != nil {
		return nil, nil, err
	}
	signature, err = k.Sign(payload)
	return payload, signature, err
}
