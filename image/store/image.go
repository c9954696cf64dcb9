package store

import (
	"errors"
	"fmt"
	"slices"

	"cale/image"
)

// ErrNotImage says that a manifest is of something that is no container image.
var ErrNotImage = errors.New("not a container image")

// maxNesting bounds how many indexes may lie inside one another.
const maxNesting = 4

// Image is one image for one platform, read from the store.
type Image struct {
	Target             image.Descriptor // what was asked for, maybe an index
	ManifestDescriptor image.Descriptor
	Manifest           *image.Manifest
	Config             *image.Config
	ID                 image.Digest // digest of the config
}

// Image reads the image that target holds for platform p. The zero platform
// means this machine's or, if the store has no such one, whatever it has: an
// image pulled for another machine can still be inspected and saved. The blobs
// of layers may be missing; see Missing.
func (s *Store) Image(target image.Descriptor, p image.Platform) (*Image, error) {
	if p != (image.Platform{}) {
		return s.imageFor(target, p)
	}
	img, err := s.imageFor(target, image.Host())
	if err == nil || !errors.Is(err, ErrNotFound) && !errors.Is(err, image.ErrNoPlatform) {
		return img, err
	}
	all, aerr := s.Manifests(target)
	if aerr != nil {
		return nil, err
	}
	for _, desc := range all {
		if img, err := s.read(target, desc); err == nil {
			return img, nil
		}
	}
	return nil, err
}

func (s *Store) imageFor(target image.Descriptor, p image.Platform) (*Image, error) {
	desc, err := s.choose(target, p)
	if err != nil {
		return nil, err
	}
	return s.read(target, desc)
}

// choose goes from target to the descriptor of one manifest.
func (s *Store) choose(desc image.Descriptor, p image.Platform) (image.Descriptor, error) {
	for range maxNesting {
		raw, mt, err := s.document(desc)
		if err != nil || !image.IsIndex(mt) {
			desc.MediaType = mt
			return desc, err
		}
		x, err := image.ParseIndex(mt, raw)
		if err != nil {
			return desc, fmt.Errorf("index %s: %w", desc.Digest, err)
		}
		if desc, err = x.Choose(p); err != nil {
			return desc, err
		}
	}
	return desc, fmt.Errorf("index %s: %w: indexes nested too deep", desc.Digest, image.ErrManifest)
}

// document reads a manifest or index and its media type.
func (s *Store) document(desc image.Descriptor) (raw []byte, mediaType string, err error) {
	raw, err = s.Read(desc.Digest, image.MaxManifestSize)
	if err != nil {
		return nil, "", err
	}
	mt := desc.MediaType
	if !image.IsIndex(mt) && !image.IsManifest(mt) {
		if mt, err = image.DetectMediaType(raw); err != nil {
			return nil, "", fmt.Errorf("manifest %s: %w", desc.Digest, err)
		}
	}
	return raw, mt, nil
}

func (s *Store) manifest(desc image.Descriptor) (*image.Manifest, error) {
	raw, mt, err := s.document(desc)
	if err != nil {
		return nil, err
	}
	m, err := image.ParseManifest(mt, raw)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	return m, nil
}

func (s *Store) read(target, desc image.Descriptor) (*Image, error) {
	m, err := s.manifest(desc)
	if err != nil {
		return nil, err
	}
	if !image.IsConfig(m.Config.MediaType) {
		return nil, fmt.Errorf("manifest %s: %w: its config is %q", desc.Digest, ErrNotImage, m.Config.MediaType)
	}
	raw, err := s.Read(m.Config.Digest, image.MaxConfigSize)
	if err != nil {
		return nil, err
	}
	c, err := image.ParseConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", m.Config.Digest, err)
	}
	if len(c.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("image %s: %w: %d layers, but %d diffIDs in its config",
			desc.Digest, image.ErrManifest, len(m.Layers), len(c.DiffIDs))
	}
	return &Image{Target: target, ManifestDescriptor: desc, Manifest: m, Config: c, ID: m.Config.Digest}, nil
}

// Manifests lists the manifests of target that are in the store: itself, or
// those of an index in its order.
func (s *Store) Manifests(target image.Descriptor) ([]image.Descriptor, error) {
	var out []image.Descriptor
	todo, next := []image.Descriptor{target}, []image.Descriptor(nil)
	for range maxNesting {
		for _, desc := range todo {
			raw, mt, err := s.document(desc)
			if errors.Is(err, ErrNotFound) && desc.Digest != target.Digest {
				continue
			}
			if err != nil {
				return nil, err
			}
			desc.MediaType = mt
			if !image.IsIndex(mt) {
				out = append(out, desc)
				continue
			}
			x, err := image.ParseIndex(mt, raw)
			if err != nil {
				return nil, fmt.Errorf("index %s: %w", desc.Digest, err)
			}
			next = append(next, x.Manifests...)
		}
		todo, next = next, nil
	}
	return slices.Clip(out), nil
}

// Missing lists the blobs of the image for p that are not in the store, other
// than those that have an Origin. If the manifest itself is
// missing, only that is known and listed.
func (s *Store) Missing(target image.Descriptor, p image.Platform) ([]image.Descriptor, error) {
	if p == (image.Platform{}) {
		p = image.Host()
	}
	if _, err := s.Stat(target.Digest); errors.Is(err, ErrNotFound) {
		return []image.Descriptor{target}, nil
	}
	desc, err := s.choose(target, p)
	if errors.Is(err, ErrNotFound) {
		return []image.Descriptor{desc}, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := s.manifest(desc)
	if err != nil {
		return nil, err
	}
	var out []image.Descriptor
	for _, d := range append([]image.Descriptor{m.Config}, m.Layers...) {
		if _, err := s.Known(d.Digest); errors.Is(err, ErrNotFound) {
			out = append(out, d)
		} else if err != nil {
			return nil, err
		}
	}
	return out, nil
}
