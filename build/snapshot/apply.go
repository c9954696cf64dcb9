package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"cale/build/keep"
	"cale/image"
	"cale/layer"
)

// Applier implements containerd's diff.Applier: an image's layer becomes a
// snapshot by a link to the layer in the image store, which unpacks it if it
// has not yet.
type Applier struct {
	Snapshots *Store
	Content   content.Provider
}

var _ diff.Applier = (*Applier)(nil)

// Apply implements diff.Applier for mounts of a fresh snapshot of Store.
func (a *Applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	out, err := a.apply(ctx, desc, mounts, opts)
	if err != nil {
		return out, fmt.Errorf("unpack layer %s: %w", desc.Digest, err)
	}
	return out, nil
}

func (a *Applier) apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts []diff.ApplyOpt) (out ocispec.Descriptor, err error) {
	var c diff.ApplyConfig
	for _, o := range opts {
		if err := o(ctx, desc, &c); err != nil {
			return out, err
		}
	}
	s := a.Snapshots
	dir, below, err := s.target(mounts)
	if err != nil {
		return out, err
	}
	id := desc.Annotations[labels.LabelUncompressed]
	if id == "" && !strings.Contains(desc.MediaType, "gzip") && !strings.Contains(desc.MediaType, "zstd") {
		id = desc.Digest.String()
	}
	diffID, err := image.ParseDigest(id)
	if err != nil {
		return out, fmt.Errorf("its diffID is not known: %w", err)
	}
	if err := s.holds.Layer(ctx, diffID); err != nil {
		return out, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.holds.DropLayer(ctx, diffID))
		}
	}()
	if err := a.unpack(ctx, desc, diffID); err != nil {
		return out, err
	}
	if mounts[0].Type == "bind" { // nothing lies below
		if err := s.layers.NoteWhiteouts(diffID); err != nil {
			return out, err
		}
	}
	if below != nil {
		// Implied directories take on what lies below them.
		if _, err := s.layers.Lower(append(below, diffID)); err != nil {
			return out, err
		}
	}
	size, err := s.layers.Size(diffID)
	if err != nil {
		return out, err
	}
	// The last that can fail: from here on Remove drops the layer.
	if err := s.layers.Refer(dir, diffID); err != nil {
		return out, err
	}
	if c.Progress != nil {
		c.Progress(desc.Size)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.Digest(diffID.String()), Size: size}, nil
}

// unpack makes sure that the layer is there.
func (a *Applier) unpack(ctx context.Context, desc ocispec.Descriptor, diffID image.Digest) error {
	s := a.Snapshots
	if s.layers.Has(diffID) {
		return s.holds.Tell(ctx)
	}
	ra, err := a.Content.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer ra.Close()
	mt := desc.MediaType
	if !image.IsLayer(mt) {
		mt = "" // told by its first bytes
	}
	_, err = s.layers.Unpack(ctx, io.NewSectionReader(ra, 0, ra.Size()), mt, diffID)
	if errors.Is(err, layer.ErrDigest) {
		return fmt.Errorf("failed to verify layer: %w", err)
	}
	if err != nil {
		return err
	}
	return s.holds.Added(ctx, keep.Content{Layers: s.layers.Unsynced()})
}

// target is the directory of the snapshot that mounts shows, and the layers
// below it, lowest first; nil if one of these is no image's.
func (s *Store) target(mounts []mount.Mount) (dir string, below []image.Digest, err error) {
	if len(mounts) != 1 {
		return "", nil, fmt.Errorf("%d mounts where one is expected", len(mounts))
	}
	if mounts[0].Type == "bind" {
		return filepath.Dir(mounts[0].Source), nil, nil
	}
	below = []image.Digest{}
	for _, o := range mounts[0].Options {
		k, v, _ := strings.Cut(o, "=")
		switch k {
		case "upperdir":
			dir = filepath.Dir(v)
		case "lowerdir":
			lower := strings.Split(v, ":")
			for i := len(lower) - 1; i >= 0 && below != nil; i-- {
				d := s.layers.Referred(filepath.Dir(lower[i]))
				if d.IsZero() {
					below = nil
					break
				}
				below = append(below, d)
			}
		}
	}
	if dir == "" {
		return "", nil, errors.New("the mounts are not of a snapshot that can be written to")
	}
	return dir, below, nil
}
