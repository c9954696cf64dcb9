package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cale/image"
	"cale/image/store"
)

// The annotations of descriptors that BuildKit binds attestations to images with.
const (
	annotationReferenceType   = "vnd.docker.reference.type"
	annotationReferenceDigest = "vnd.docker.reference.digest"
	annotationPredicate       = "in-toto.io/predicate-type"
	attestationManifest       = "attestation-manifest"
)

// ImagePart is one of the manifests that an image's name stands for.
type ImagePart struct {
	image.Descriptor
	For        string // of an attestation: the digest of what it attests
	Image      bool   // that a container can be made of
	Available  bool   // with all its blobs
	Content    int64  // bytes of its blobs that are here
	Unpacked   int64  // bytes of its layers' files
	Containers []string
}

// ImageParts lists the manifests of an image's name, those that are not here among them.
func (e *Engine) ImageParts(ctx context.Context, ref string) ([]ImagePart, error) {
	target, _, err := e.resolveTarget(ref)
	if err != nil {
		return nil, err
	}
	return e.imageParts(target)
}

func (e *Engine) imageParts(target image.Descriptor) ([]ImagePart, error) {
	entries := []image.Descriptor{target}
	if image.IsIndex(target.MediaType) {
		raw, err := e.store.Read(target.Digest, image.MaxManifestSize)
		if err != nil {
			return nil, err
		}
		x, err := image.ParseIndex(target.MediaType, raw)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", target.Digest, err)
		}
		entries = x.Manifests
	}
	out := make([]ImagePart, 0, len(entries))
	for _, d := range entries {
		p, err := e.imagePart(d)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func (e *Engine) imagePart(d image.Descriptor) (ImagePart, error) {
	p := ImagePart{Descriptor: d, Image: d.Annotations[annotationReferenceType] == "" && d.ArtifactType == ""}
	if d.Annotations[annotationReferenceType] == attestationManifest {
		p.For = d.Annotations[annotationReferenceDigest]
	}
	raw, err := e.store.Read(d.Digest, image.MaxManifestSize)
	if errors.Is(err, store.ErrNotFound) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	p.Content = int64(len(raw))
	m, err := image.ParseManifest(d.MediaType, raw)
	if err != nil {
		p.Image = false
		return p, nil // an index in an index, or nothing of ours
	}
	p.Available = true
	for _, b := range append([]image.Descriptor{m.Config}, m.Layers...) {
		n, err := e.store.Known(b.Digest)
		if errors.Is(err, store.ErrNotFound) {
			p.Available = false
			continue
		}
		if err != nil {
			return p, err
		}
		p.Content += n
	}
	if !p.Image {
		return p, nil
	}
	img, err := e.store.Image(d, image.Platform{})
	if err != nil {
		p.Image = p.Platform != nil && !p.Available // what isn't here is what its platform says
		return p, nil
	}
	if p.Platform == nil {
		platform := img.Config.Platform
		p.Platform = &platform
	}
	for _, id := range img.Config.DiffIDs {
		if n, err := e.store.Layers.Size(id); err == nil {
			p.Unpacked += n
		}
	}
	for _, c := range e.all() {
		if c.imageID() == img.ID.String() {
			p.Containers = append(p.Containers, c.id)
		}
	}
	return p, nil
}

// RemoveImageParts removes the images of single platforms from among those that a name stands for. The name stays, and
// a pull for such a platform brings it back.
func (e *Engine) RemoveImageParts(ctx context.Context, ref string, platforms []string, force bool) ([]RemovedImage, error) {
	defer e.begin()()
	target, name, err := e.resolveTarget(ref)
	if err != nil {
		return nil, err
	}
	if !image.IsIndex(target.MediaType) {
		return nil, invalid("%s is of one platform only: remove it whole", name)
	}
	var drop []*store.Image
	for _, p := range platforms {
		img, _, err := e.resolveImage(ref, p)
		if err != nil {
			return nil, err
		}
		if err := e.checkPartUnused(img, target, force); err != nil {
			return nil, err
		}
		drop = append(drop, img)
	}
	var out []RemovedImage
	defer e.collect()
	for _, img := range drop {
		d := img.ManifestDescriptor.Digest
		if err := e.store.Remove(d); err != nil && !errors.Is(err, store.ErrNotFound) {
			return out, err
		}
		out = append(out, RemovedImage{Deleted: d.String()})
		e.emitOther("image", "delete", d.String(), "name", name)
	}
	return out, nil
}

// checkPartUnused refuses to remove what a container stands on, or another image's name.
func (e *Engine) checkPartUnused(img *store.Image, target image.Descriptor, force bool) error {
	for _, c := range e.all() {
		c.mu.Lock()
		uses, running := c.rec.ImageID == img.ID.String(), c.run != nil
		c.mu.Unlock()
		if uses && (running || !force) {
			return conflict("conflict: unable to delete %s - container %s is using it", img.Config.Platform, c.id[:12])
		}
	}
	names, err := e.store.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.Target.Digest == target.Digest {
			continue
		}
		all, err := e.store.Manifests(n.Target)
		if err != nil {
			continue // nothing that is here
		}
		if slices.ContainsFunc(all, func(d image.Descriptor) bool { return d.Digest == img.ManifestDescriptor.Digest }) {
			return conflict("conflict: unable to delete %s - it belongs to %s too", img.Config.Platform, n.Name)
		}
	}
	return nil
}

// Attestation is a statement about an image, in the form of in-toto.
type Attestation struct {
	image.Descriptor
	Predicate string // the type of what it says, a URI
	Statement []byte // its JSON, as it is; nil unless it was asked for
}

// Attestations lists the statements about an image for a platform ("" is this machine's) that came with it, of the
// predicates named or of all.
func (e *Engine) Attestations(ctx context.Context, ref, platform string, predicates []string, statements bool) ([]Attestation, error) {
	target, _, err := e.resolveTarget(ref)
	if err != nil || !image.IsIndex(target.MediaType) {
		return nil, err
	}
	img, _, err := e.resolveImage(ref, platform)
	if err != nil {
		return nil, err
	}
	parts, err := e.imageParts(target)
	if err != nil {
		return nil, err
	}
	var out []Attestation
	for _, p := range parts {
		if p.For != img.ManifestDescriptor.Digest.String() {
			continue
		}
		raw, err := e.store.Read(p.Digest, image.MaxManifestSize)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m, err := image.ParseManifest(p.MediaType, raw)
		if err != nil {
			return nil, fmt.Errorf("attestations %s: %w", p.Digest, err)
		}
		for _, l := range m.Layers {
			a := Attestation{Descriptor: l, Predicate: l.Annotations[annotationPredicate]}
			if a.Predicate == "" || len(predicates) > 0 && !slices.Contains(predicates, a.Predicate) {
				continue
			}
			if statements {
				if a.Statement, err = e.store.Read(l.Digest, maxStatement); err != nil {
					return nil, fmt.Errorf("statement %s: %w", l.Digest, err)
				}
			}
			out = append(out, a)
		}
	}
	return out, nil
}

// maxStatement bounds what is read of one statement, in bytes: a bill of materials of a large system has megabytes.
const maxStatement = 64 << 20
