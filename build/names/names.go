// Package names shows the image store's names to BuildKit, which finds base
// images by them and gives results theirs.
package names

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"cale/build/keep"
	"cale/image"
)

// Store implements containerd's images.Store.
type Store struct{ Keeper keep.Keeper }

var _ images.Store = (*Store)(nil)

// Get implements images.Store.
func (s *Store) Get(ctx context.Context, name string) (images.Image, error) {
	all, err := s.List(ctx)
	if err != nil {
		return images.Image{}, err
	}
	for _, i := range all {
		if i.Name == name {
			return i, nil
		}
	}
	return images.Image{}, fmt.Errorf("image %s: %w", name, errdefs.ErrNotFound)
}

// List implements images.Store; filters are not known here.
func (s *Store) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	if len(filters) > 0 {
		return nil, fmt.Errorf("list images by %q: %w", filters, errdefs.ErrNotImplemented)
	}
	names, err := s.Keeper.Names(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]images.Image, 0, len(names))
	for _, n := range names {
		out = append(out, images.Image{
			Name: n.Name, CreatedAt: n.Updated, UpdatedAt: n.Updated,
			Target: ocispec.Descriptor{MediaType: n.Target.MediaType, Digest: digest.Digest(n.Target.Digest.String()), Size: n.Target.Size},
		})
	}
	return out, nil
}

// Create implements images.Store.
func (s *Store) Create(ctx context.Context, i images.Image) (images.Image, error) {
	d, err := image.ParseDigest(i.Target.Digest.String())
	if err != nil {
		return i, err
	}
	return i, s.Keeper.SetName(ctx, i.Name, image.Descriptor{MediaType: i.Target.MediaType, Digest: d, Size: i.Target.Size})
}

// Update implements images.Store. A name is set whether it was there or not.
func (s *Store) Update(ctx context.Context, i images.Image, _ ...string) (images.Image, error) {
	return s.Create(ctx, i)
}

// Delete implements images.Store.
func (s *Store) Delete(_ context.Context, name string, _ ...images.DeleteOpt) error {
	return fmt.Errorf("remove image %s: a build does not: %w", name, errdefs.ErrNotImplemented)
}
