package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cale/image"
	"cale/image/store"
)

// Manifest is the document that a name stands for: here, if it is an index that is here whole or was made here, and
// otherwise in its registry.
func (e *Engine) Manifest(ctx context.Context, ref string, c *Credentials) (mediaType string, raw []byte, err error) {
	defer e.begin()()
	parsed, err := e.parseName(ref)
	if err != nil {
		return "", nil, err
	}
	if target, err := e.store.Resolve(parsed.String()); err == nil && image.IsIndex(target.MediaType) {
		if raw, err := e.store.Read(target.Digest, image.MaxManifestSize); err == nil {
			return target.MediaType, raw, nil
		}
	}
	reg := e.clientFor(c, parsed.Domain)
	d, err := reg.Resolve(ctx, parsed)
	if err != nil {
		return "", nil, registryError(err)
	}
	raw, mediaType, err = reg.Manifest(ctx, parsed, d)
	return mediaType, raw, registryError(err)
}

// MakeIndex puts images that are here together as one of several platforms, under a name; amend adds to one that is
// there. Of two for one platform the later stays.
func (e *Engine) MakeIndex(name string, members []string, amend bool) (digest string, err error) {
	defer e.begin()()
	parsed, err := e.parseName(name)
	if err != nil {
		return "", err
	}
	x := &image.Index{MediaType: image.MediaTypeIndex}
	switch old, err := e.index(parsed); {
	case err == nil && !amend:
		return "", fail(ErrConflict, "refusing to amend an existing manifest list with no --amend flag")
	case err == nil:
		x = old
	case !errors.Is(err, ErrNoSuchImage):
		return "", err
	}
	pin := e.store.Pin("change of a manifest list")
	defer pin.Release()
	docker := true
	for _, m := range members {
		target, ref, err := e.resolveTarget(m)
		if err != nil {
			return "", err
		}
		pin.Add(target.Digest)
		found, err := e.wholeManifests(target)
		if err != nil {
			return "", err
		}
		if len(found) == 0 {
			return "", fail(ErrNoSuchImage, "%s is not here whole: pull it", ref)
		}
		for _, d := range found {
			docker = docker && d.MediaType == image.MediaTypeDockerManifest
			x.Manifests = slices.DeleteFunc(x.Manifests, func(o image.Descriptor) bool {
				return o.Digest == d.Digest || o.Platform != nil && o.Platform.String() == d.Platform.String()
			})
			x.Manifests = append(x.Manifests, d)
		}
	}
	if docker && len(x.Manifests) == len(members) {
		x.MediaType = image.MediaTypeDockerIndex // nothing in it is of the newer kind
	}
	return e.keepIndex(parsed, x)
}

// AnnotateIndex changes for what platform an index names one of its images, by the fields of p that are set.
func (e *Engine) AnnotateIndex(name, member string, p image.Platform) (digest string, err error) {
	defer e.begin()()
	parsed, err := e.parseName(name)
	if err != nil {
		return "", err
	}
	x, err := e.index(parsed)
	if err != nil {
		return "", err
	}
	target, ref, err := e.resolveTarget(member)
	if err != nil {
		return "", err
	}
	found, err := e.wholeManifests(target)
	if err != nil {
		return "", err
	}
	for i, d := range x.Manifests {
		if !slices.ContainsFunc(found, func(f image.Descriptor) bool { return f.Digest == d.Digest }) {
			continue
		}
		to := image.Platform{}
		if d.Platform != nil {
			to = *d.Platform
		}
		for _, f := range []struct{ to, from *string }{{&to.OS, &p.OS}, {&to.Architecture, &p.Architecture}, {&to.Variant, &p.Variant}, {&to.OSVersion, &p.OSVersion}} {
			if *f.from != "" {
				*f.to = *f.from
			}
		}
		x.Manifests[i].Platform = &to
		return e.keepIndex(parsed, x)
	}
	return "", fail(ErrNoSuchImage, "manifest for image %s does not exist in %s", ref, e.familiar(parsed))
}

// index reads the index that a name stands for here; ErrNoSuchImage if there is none.
func (e *Engine) index(ref image.Reference) (*image.Index, error) {
	target, err := e.store.Resolve(ref.String())
	if errors.Is(err, store.ErrNotFound) {
		return nil, fail(ErrNoSuchImage, "No such manifest: %s", e.familiar(ref))
	}
	if err != nil {
		return nil, err
	}
	if !image.IsIndex(target.MediaType) {
		return nil, invalid("%s is an image of one platform, not a manifest list", e.familiar(ref))
	}
	raw, err := e.store.Read(target.Digest, image.MaxManifestSize)
	if err != nil {
		return nil, err
	}
	x, err := image.ParseIndex(target.MediaType, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.familiar(ref), err)
	}
	return x, nil
}

// wholeManifests are the images of target that are here with all their blobs, each with its platform.
func (e *Engine) wholeManifests(target image.Descriptor) ([]image.Descriptor, error) {
	all, err := e.store.Manifests(target)
	if err != nil {
		return nil, err
	}
	var out []image.Descriptor
	for _, d := range all {
		missing, err := e.store.Missing(d, image.Platform{})
		if err != nil || len(missing) > 0 {
			continue
		}
		img, err := e.store.Image(d, image.Platform{})
		if err != nil {
			continue // no image: attestations, say
		}
		d.Size = int64(len(img.Manifest.Raw))
		if d.Platform == nil {
			p := img.Config.Platform
			d.Platform = &p
		}
		out = append(out, d)
	}
	return out, nil
}

// keepIndex stores an index under a name.
func (e *Engine) keepIndex(ref image.Reference, x *image.Index) (digest string, err error) {
	raw, err := x.Encode()
	if err != nil {
		return "", err
	}
	if len(raw) > image.MaxManifestSize {
		return "", invalid("a manifest list of %d bytes is larger than registries take", len(raw))
	}
	pin := e.store.Pin("change of a manifest list")
	defer pin.Release()
	pin.Add(image.FromBytes(raw))
	d, err := e.store.Put(x.MediaType, raw)
	if err != nil {
		return "", err
	}
	old, oldErr := e.store.Resolve(ref.String())
	if err := e.store.SetName(ref.String(), d); err != nil {
		return "", err
	}
	if oldErr == nil && old.Digest != d.Digest && !image.IsIndex(old.MediaType) {
		if err := e.store.KeepUntagged(old); err != nil {
			return "", err
		}
	}
	e.dropUntagged(d)
	return d.Digest.String(), nil
}
