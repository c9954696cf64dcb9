package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	bolt "go.etcd.io/bbolt"

	"cale/image"
	"cale/layer"
)

// Kind is what a problem is about.
type Kind string

// The kinds of objects that a store holds.
const (
	KindBlob     Kind = "blob"
	KindImage    Kind = "image"
	KindLayer    Kind = "layer"
	KindDatabase Kind = "database"
)

// Problem is something that Check found wrong.
type Problem struct {
	Kind   Kind
	Name   string       // of an image
	Digest image.Digest // of a blob or layer
	Text   string
}

// Object names what the problem is about: "blob sha256:…", "image docker.io/…".
func (p Problem) Object() string {
	switch p.Kind {
	case KindBlob, KindLayer:
		return string(p.Kind) + " " + p.Digest.String()
	case KindImage:
		return "image " + p.Name
	}
	return string(p.Kind)
}

func (p Problem) String() string { return p.Object() + ": " + p.Text }

// Checked counts what Check read.
type Checked struct {
	Blobs, Images, Layers int
	Bytes                 int64 // of blobs and of the files of layers
	Unverified            int   // layers whose blob is not here to compare them with
}

// Check reads the whole store: whether the database is sound, each blob is
// what its name says, each name's image is readable and whole for at least one
// platform, and each unpacked layer is what its blob unpacks to. It changes
// nothing, and takes room for the largest layer once more. The error is of the
// check itself.
func (s *Store) Check(ctx context.Context) ([]Problem, Checked, error) {
	c := checker{s: s, pin: s.Pin("check of the store"), bad: map[image.Digest]bool{}}
	defer c.pin.Release()
	if err := c.run(ctx); err != nil {
		return c.out, c.done, fmt.Errorf("check image store: %w", err)
	}
	return c.out, c.done, nil
}

type checker struct {
	s    *Store
	pin  *Pin // what is being checked isn't collected meanwhile
	bad  map[image.Digest]bool
	out  []Problem
	done Checked
}

func (c *checker) run(ctx context.Context) error {
	if err := c.database(); err != nil {
		return err
	}
	blobs, err := c.s.Blobs()
	if err != nil {
		return err
	}
	c.pin.Add(blobs...)
	for _, d := range blobs {
		size, err := c.s.checkBlob(ctx, d)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, ErrNotFound) {
			continue // collected before it was pinned
		}
		c.done.Blobs++
		c.done.Bytes += size
		if err != nil {
			c.bad[d] = true
			c.out = append(c.out, Problem{Kind: KindBlob, Digest: d, Text: err.Error()})
		}
	}
	names, err := c.s.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		c.done.Images++
		if err := c.s.checkTarget(n.Target); err != nil {
			if _, gone := c.s.Resolve(n.Name); errors.Is(gone, ErrNotFound) {
				continue
			}
			c.out = append(c.out, Problem{Kind: KindImage, Name: n.Name, Text: err.Error()})
		}
	}
	return c.layers(ctx, names)
}

// database checks the pages of meta.db.
func (c *checker) database() error {
	return c.s.db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			c.out = append(c.out, Problem{Kind: KindDatabase, Text: err.Error()})
		}
		return nil
	})
}

// layers compares the unpacked layers with their blobs.
func (c *checker) layers(ctx context.Context, names []Name) error {
	all, err := c.s.Layers.List()
	if err != nil {
		return err
	}
	c.pin.Add(all...)
	blobs, err := c.s.layerBlobs(names)
	if err != nil {
		return err
	}
	for _, d := range all {
		size, err := c.s.Layers.Size(d)
		switch {
		case errors.Is(err, layer.ErrNotFound) && !c.s.Layers.There(d):
			continue // collected before it was pinned
		case err != nil:
			err = fmt.Errorf("%w: %w", layer.ErrDamaged, err)
		default:
			err = c.layer(ctx, d, blobs[d])
		}
		c.done.Layers++
		c.done.Bytes += size
		switch {
		case errors.Is(err, layer.ErrDamaged):
			c.out = append(c.out, Problem{Kind: KindLayer, Digest: d, Text: err.Error()})
		case err != nil: // no room, or cancelled: that says nothing of the layer
			return err
		}
	}
	return nil
}

func (c *checker) layer(ctx context.Context, d image.Digest, from image.Descriptor) error {
	if c.s.Layers.IsImage(d) {
		return c.s.Layers.VerifyImage(ctx, d)
	}
	b, err := c.s.Open(from.Digest)
	if from.Digest.IsZero() || c.bad[from.Digest] || errors.Is(err, ErrNotFound) {
		if err == nil {
			b.Close()
		}
		c.done.Unverified++
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Close()
	return c.s.Layers.Verify(ctx, b, d)
}

// layerBlobs finds, for unpacked layers, the blobs they come from, by the
// images that are here.
func (s *Store) layerBlobs(names []Name) (map[image.Digest]image.Descriptor, error) {
	targets := make([]image.Digest, 0, len(names))
	for _, n := range names {
		targets = append(targets, n.Target.Digest)
	}
	for _, held := range s.Leases() {
		targets = append(targets, held...)
	}
	out := map[image.Digest]image.Descriptor{}
	for _, t := range targets {
		manifests, err := s.Manifests(image.Descriptor{Digest: t})
		if err != nil {
			continue // missing, damaged or no manifest: told elsewhere
		}
		for _, m := range manifests {
			img, err := s.read(m, m)
			if err != nil {
				continue
			}
			for i, id := range img.Config.DiffIDs {
				out[id] = img.Manifest.Layers[i]
			}
		}
	}
	return out, nil
}

func (s *Store) checkBlob(ctx context.Context, d image.Digest) (int64, error) {
	b, err := s.Open(d)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	h := d.Hash()
	for {
		if err := ctx.Err(); err != nil {
			return b.Size(), err
		}
		// In pieces, so that a check of large blobs can be stopped.
		_, err := io.CopyN(h, b.f, 8<<20)
		if err == io.EOF {
			break
		}
		if err != nil {
			return b.Size(), err
		}
	}
	if have := image.FromHash(h); have != d {
		return b.Size(), fmt.Errorf("%w: it is %s", ErrMismatch, have)
	}
	return b.Size(), nil
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

// Repair removes a damaged blob or layer, so that the next pull fetches it or
// the next container unpacks it; a layer is unpacked again at once if its blob
// is here. No container may be using the layer. It tells what it did.
func (s *Store) Repair(ctx context.Context, p Problem) (did string, err error) {
	switch p.Kind {
	case KindBlob:
		// Somebody may have put it right meanwhile.
		if _, err := s.checkBlob(ctx, p.Digest); !errors.Is(err, ErrMismatch) {
			return "", err
		}
		if err := s.Remove(p.Digest); err != nil && !errors.Is(err, ErrNotFound) {
			return "", err
		}
		return "removed: the next pull fetches it", nil
	case KindLayer:
		return s.repairLayer(ctx, p.Digest)
	}
	return "", nil
}

func (s *Store) repairLayer(ctx context.Context, d image.Digest) (did string, err error) {
	pin := s.Pin("repair of the store")
	defer pin.Release()
	pin.Add(d)
	names, err := s.Names()
	if err != nil {
		return "", err
	}
	blobs, err := s.layerBlobs(names)
	if err != nil {
		return "", err
	}
	if err := s.Layers.Hide(d); err != nil && !errors.Is(err, layer.ErrNotFound) {
		return "", err
	}
	if err := s.forget(nil, []image.Digest{d}); err != nil {
		return "", err
	}
	from := blobs[d]
	b, err := s.Open(from.Digest)
	if err != nil {
		return "removed: the next pull brings it", nil
	}
	defer b.Close()
	if _, err := s.Layers.Unpack(ctx, b, from.MediaType, d); err != nil {
		return "", err
	}
	return "unpacked again", s.Layers.Sweep(ctx)
}
