package store

import (
	"context"
	"fmt"
	"io"

	"cale/image"
)

// Problem is something that Check found wrong.
type Problem struct {
	Object string // "blob sha256:…", "image docker.io/…", "layer sha256:…"
	Text   string
}

func (p Problem) String() string { return p.Object + ": " + p.Text }

// Check reads the whole store: whether each blob is what its name says, each
// name's image is readable and whole for at least one platform, and each layer
// has its size noted. It changes nothing. The error is of the check itself.
func (s *Store) Check(ctx context.Context) ([]Problem, error) {
	// Nothing is collected meanwhile; what is being written is left out by
	// itself, as it has no name yet.
	s.gc.RLock()
	defer s.gc.RUnlock()
	var out []Problem
	add := func(object string, err error) { out = append(out, Problem{object, err.Error()}) }
	blobs, err := s.Blobs()
	if err != nil {
		return nil, fmt.Errorf("check image store: %w", err)
	}
	for _, d := range blobs {
		if err := s.checkBlob(ctx, d); ctx.Err() != nil {
			return out, ctx.Err()
		} else if err != nil {
			add("blob "+d.String(), err)
		}
	}
	names, err := s.Names()
	if err != nil {
		return out, fmt.Errorf("check image store: %w", err)
	}
	for _, n := range names {
		if err := s.checkTarget(n.Target); err != nil {
			add("image "+n.Name, err)
		}
	}
	layers, err := s.Layers.List()
	if err != nil {
		return out, fmt.Errorf("check image store: %w", err)
	}
	for _, d := range layers {
		if _, err := s.Layers.Size(d); err != nil {
			add("layer "+d.String(), err)
		}
	}
	return out, nil
}

func (s *Store) checkBlob(ctx context.Context, d image.Digest) error {
	b, err := s.Open(d)
	if err != nil {
		return err
	}
	defer b.Close()
	h := d.Hash()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		// In pieces, so that a check of large blobs can be stopped.
		_, err := io.CopyN(h, b.f, 8<<20)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if have := image.FromHash(h); have != d {
		return fmt.Errorf("%w: it is %s", ErrMismatch, have)
	}
	return nil
}

// checkTarget tells whether any platform of target is here whole.
func (s *Store) checkTarget(target image.Descriptor) error {
	all, err := s.Manifests(target)
	if err != nil {
		return err
	}
	why := fmt.Errorf("none of its manifests is here: %w", ErrNotFound)
	for _, m := range all {
		miss, err := s.Missing(m, image.Platform{})
		if err == nil && len(miss) == 0 {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("blob %s: %w", miss[0].Digest, ErrNotFound)
		}
		why = err
	}
	return why
}
