// Package signature finds an image's signatures in its registry, and adds to
// them, as cosign keeps them: in a manifest under a tag made of the image's
// digest ("sha256-….sig"), or in manifests that refer to the image. Each layer
// of such a manifest is the payload of one signature, which is in the layer's
// annotations.
package signature

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"cale/image"
	"cale/image/trust"
	"cale/registry/client"
)

// What cosign calls its things.
const (
	payloadType  = "application/vnd.dev.cosign.simplesigning.v1+json"
	artifactType = "application/vnd.dev.cosign.artifact.sig.v1+json"

	keySignature   = "dev.cosignproject.cosign/signature"
	keyCertificate = "dev.sigstore.cosign/certificate"
	keyChain       = "dev.sigstore.cosign/chain"
	keyBundle      = "dev.sigstore.cosign/bundle"
)

// maxSignatures bounds how many signatures of one image are looked at: whoever
// may push may add to them.
const maxSignatures = 256

// Fetch gets all signatures of the manifest of a digest in ref's repository.
// There may be none. With an error come those that were found before.
func Fetch(ctx context.Context, c *client.Client, ref image.Reference, digest image.Digest) (list []trust.Signature, err error) {
	m, err := tagged(ctx, c, ref, digest)
	if err != nil {
		return nil, err
	}
	if m != nil {
		if list, err = read(ctx, c, ref, m, list); err != nil {
			return list, err
		}
	}
	found, err := c.Referrers(ctx, ref, digest, artifactType)
	if err != nil {
		return list, err
	}
	for _, d := range found {
		raw, mt, err := c.Manifest(ctx, ref, d)
		if err != nil {
			return list, err
		}
		m, err := image.ParseManifest(mt, raw)
		if err != nil {
			return list, fmt.Errorf("signature %s: %w", d.Digest.Short(), err)
		}
		if list, err = read(ctx, c, ref, m, list); err != nil {
			return list, err
		}
	}
	return list, nil
}

// tag is where cosign keeps the signatures of a manifest.
func tag(digest image.Digest) string {
	return strings.Replace(digest.String(), ":", "-", 1) + ".sig"
}

// tagged is the manifest of signatures under the tag, nil if there is none.
func tagged(ctx context.Context, c *client.Client, ref image.Reference, digest image.Digest) (*image.Manifest, error) {
	at := ref.WithTag(tag(digest))
	raw, mt, err := c.Manifest(ctx, at, image.Descriptor{})
	if errors.Is(err, client.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := image.ParseManifest(mt, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at.Familiar(), err)
	}
	return m, nil
}

// read appends the signatures of one manifest to list.
func read(ctx context.Context, c *client.Client, ref image.Reference, m *image.Manifest, list []trust.Signature) ([]trust.Signature, error) {
	for _, l := range m.Layers {
		if l.MediaType != payloadType || l.Size > trust.MaxPayload {
			continue // an attestation or the like
		}
		sig, err := base64.StdEncoding.DecodeString(l.Annotations[keySignature])
		if err != nil || len(sig) == 0 {
			continue
		}
		if len(list) == maxSignatures {
			return list, fmt.Errorf("%s has more than %d signatures", ref.FamiliarName(), maxSignatures)
		}
		payload, err := blob(ctx, c, ref, l)
		if err != nil {
			return list, err
		}
		list = append(list, trust.Signature{
			Payload: payload, Signature: sig, Certificate: []byte(l.Annotations[keyCertificate]),
			Chain: []byte(l.Annotations[keyChain]), Bundle: []byte(l.Annotations[keyBundle]),
		})
	}
	return list, nil
}

func blob(ctx context.Context, c *client.Client, ref image.Reference, d image.Descriptor) ([]byte, error) {
	body, _, err := c.Blob(ctx, ref, d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, d.Size))
	if err != nil {
		return nil, fmt.Errorf("signature %s: %w", d.Digest.Short(), err)
	}
	h := d.Digest.Hash()
	h.Write(raw)
	if have := image.FromHash(h); have != d.Digest {
		return nil, fmt.Errorf("signature %s: %w: it is %s", d.Digest.Short(), client.ErrDigest, have)
	}
	return raw, nil
}

// Attach adds a signature to those that the registry has of the manifest of a
// digest in ref's repository. Two that do so at one time may lose one of them,
// as with every tool that keeps signatures so: the protocol has no transaction.
func Attach(ctx context.Context, c *client.Client, ref image.Reference, digest image.Digest, s trust.Signature) error {
	m, err := tagged(ctx, c, ref, digest)
	if err != nil {
		return err
	}
	if m == nil {
		m = &image.Manifest{MediaType: image.MediaTypeManifest}
	}
	l := image.Descriptor{
		MediaType: payloadType, Digest: image.FromBytes(s.Payload), Size: int64(len(s.Payload)),
		Annotations: map[string]string{keySignature: base64.StdEncoding.EncodeToString(s.Signature)},
	}
	for _, other := range m.Layers {
		if other.Digest == l.Digest && other.Annotations[keySignature] == l.Annotations[keySignature] {
			return nil
		}
	}
	m.Layers = append(m.Layers, l)
	config, err := configOf(m.Layers)
	if err != nil {
		return err
	}
	m.Config = image.Descriptor{MediaType: image.MediaTypeConfig, Digest: image.FromBytes(config), Size: int64(len(config))}
	raw, err := m.Encode()
	if err != nil {
		return err
	}
	for _, b := range []struct {
		desc image.Descriptor
		raw  []byte
	}{{l, s.Payload}, {m.Config, config}} {
		if err := c.PushBlob(ctx, ref, b.desc, bytes.NewReader(b.raw), nil); err != nil {
			return err
		}
	}
	return c.PushManifest(ctx, ref.WithTag(tag(digest)), image.MediaTypeManifest, raw)
}

// configOf is what the format wants of an image's configuration: registries
// look at no more than its being there.
func configOf(layers []image.Descriptor) ([]byte, error) {
	var c struct {
		Architecture string   `json:"architecture"`
		OS           string   `json:"os"`
		Config       struct{} `json:"config"`
		RootFS       struct {
			Type    string         `json:"type"`
			DiffIDs []image.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	c.RootFS.Type = "layers"
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.Digest)
	}
	return json.Marshal(c)
}
