package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"cale/image"
)

// Freed is what a collection removed.
type Freed struct {
	Blobs  int
	Bytes  int64 // of blobs and of the files of layers
	Layers []image.Digest
}

// partLife is how long a part of a blob is worth keeping.
const partLife = 24 * time.Hour

// GC removes the blobs and unpacked layers that no name, lease or pin reaches,
// parts of blobs that nobody continued for a day, and blobs of unpacked layers
// that have an Origin and that nothing under way needs.
func (s *Store) GC(ctx context.Context) (Freed, error) {
	freed, err := s.collect(ctx)
	if err != nil {
		return freed, fmt.Errorf("collect garbage: %w", err)
	}
	// Out of sight already; the files of large trees take their time.
	if err := s.Layers.Sweep(ctx); err != nil {
		return freed, fmt.Errorf("collect garbage: %w", err)
	}
	return freed, nil
}

func (s *Store) collect(ctx context.Context) (freed Freed, err error) {
	s.gc.Lock()
	defer s.gc.Unlock()
	m := marker{s: s, live: map[image.Digest]bool{}}
	if err := m.roots(ctx); err != nil {
		return freed, err
	}
	spare, err := s.spare(ctx, m.live)
	if err != nil {
		return freed, err
	}
	blobs, err := s.Blobs()
	if err != nil {
		return freed, err
	}
	var gone []image.Digest
	defer func() {
		if ferr := s.forget(gone, freed.Layers); err == nil {
			err = ferr
		}
	}()
	for _, d := range blobs {
		if m.live[d] && !spare[d] {
			continue
		}
		size, _ := s.Stat(d)
		if err := os.Remove(s.blobPath(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return freed, err
		}
		gone = append(gone, d)
		freed.Blobs++
		freed.Bytes += size
	}
	layers, err := s.Layers.List()
	if err != nil {
		return freed, err
	}
	for _, d := range layers {
		if m.live[d] {
			continue
		}
		size, _ := s.Layers.Size(d)
		if err := s.Layers.Hide(d); err != nil {
			return freed, err
		}
		freed.Layers = append(freed.Layers, d)
		freed.Bytes += size
	}
	return freed, s.dropParts()
}

// spare finds the blobs that can be had again and that nothing under way needs.
// It forgets where those come from that are not live.
func (s *Store) spare(ctx context.Context, live map[image.Digest]bool) (map[image.Digest]bool, error) {
	all, err := s.origins()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	used := marker{s: s, live: map[image.Digest]bool{}}
	s.mu.Lock()
	todo := s.pinned()
	s.mu.Unlock()
	if err := used.reach(ctx, todo); err != nil {
		return nil, err
	}
	out := map[image.Digest]bool{}
	for _, d := range all {
		if !live[d] {
			if err := s.Keep(d); err != nil {
				return nil, err
			}
			continue
		}
		if o, err := s.Origin(d); err == nil && !used.live[d] && s.Layers.Has(o.DiffID) {
			out[d] = true
		}
	}
	return out, nil
}

// pinned lists what is pinned. s.mu is held.
func (s *Store) pinned() []image.Digest {
	var out []image.Digest
	for p := range s.pins {
		for d := range p.set {
			out = append(out, d)
		}
	}
	return out
}

// forget takes what was removed out of the list of what is synced.
func (s *Store) forget(blobs, layers []image.Digest) error {
	if len(blobs)+len(layers) == 0 {
		return nil
	}
	gone := map[image.Digest]bool{}
	for _, d := range blobs {
		gone[d] = true
	}
	s.mu.Lock()
	kept := s.fresh[:0:0]
	for _, d := range s.fresh {
		if !gone[d] {
			kept = append(kept, d)
		}
	}
	s.fresh = kept
	s.mu.Unlock()
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketSynced)
		for _, d := range blobs {
			if err := b.Delete([]byte(d.String())); err != nil {
				return err
			}
		}
		for _, d := range layers {
			if err := b.Delete([]byte(layerKey(d))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) dropParts() error {
	dir := filepath.Join(s.root, "ingest")
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		s.mu.Lock()
		_, busy := s.busy[e.Name()]
		s.mu.Unlock()
		if busy {
			continue
		}
		fi, err := e.Info()
		if err != nil || time.Since(fi.ModTime()) < partLife {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// DropPart removes what is there of a blob that is not complete, unless
// somebody is writing it. That there is nothing is no error.
func (s *Store) DropPart(d image.Digest) error {
	if d.IsZero() {
		return nil
	}
	key := d.Algorithm() + "-" + d.Encoded()
	s.mu.Lock()
	_, busy := s.busy[key]
	if !busy {
		s.busy[key] = make(chan struct{})
	}
	s.mu.Unlock()
	if busy {
		return nil
	}
	defer s.release(key)
	if err := os.Remove(s.partPath(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop part of blob %s: %w", d, err)
	}
	return nil
}

// marker finds what is reachable.
type marker struct {
	s    *Store
	live map[image.Digest]bool
}

func (m *marker) roots(ctx context.Context) error {
	names, err := m.s.Names()
	if err != nil {
		return err
	}
	var todo []image.Digest
	for _, n := range names {
		todo = append(todo, n.Target.Digest)
	}
	var only []image.Digest
	m.s.mu.Lock()
	for id, all := range m.s.leases {
		if strings.HasPrefix(id, Only) {
			only = append(only, all...)
			continue
		}
		todo = append(todo, all...)
	}
	todo = append(todo, m.s.pinned()...)
	m.s.mu.Unlock()
	if err := m.reach(ctx, todo); err != nil {
		return err
	}
	for _, d := range only {
		m.live[d] = true
	}
	return nil
}

// reach marks what the given digests lead to.
func (m *marker) reach(ctx context.Context, todo []image.Digest) error {
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if d.IsZero() || m.live[d] {
			continue
		}
		m.live[d] = true
		more, err := m.children(d)
		if err != nil {
			return err
		}
		todo = append(todo, more...)
	}
	return nil
}

// children is what a blob refers to. Digests come here without media types
// that could be relied on, so small blobs that look like documents are tried
// as such; a blob that is no document refers to nothing. A document that is
// damaged ends the collection: what it referred to is not known.
func (m *marker) children(d image.Digest) ([]image.Digest, error) {
	b, err := m.s.Open(d)
	if errors.Is(err, ErrNotFound) {
		return nil, nil // a layer's diffID, or an image of which this part was never pulled
	}
	if err != nil {
		return nil, err
	}
	var first [1]byte
	n, err := b.ReadAt(first[:], 0)
	size := b.Size()
	b.Close()
	if n == 0 && err != nil && size > 0 {
		return nil, err
	}
	if size < 2 || size > max(image.MaxManifestSize, image.MaxConfigSize) || first[0] != '{' && first[0] != ' ' && first[0] != '\n' && first[0] != '\t' && first[0] != '\r' {
		return nil, nil
	}
	raw, err := m.s.Read(d, size)
	if err != nil {
		return nil, err
	}
	return references(raw), nil
}

// references lists the digests in a manifest, index or image config.
func references(raw []byte) []image.Digest {
	var out []image.Digest
	if mt, err := image.DetectMediaType(raw); err == nil {
		if x, err := image.ParseIndex(mt, raw); err == nil {
			for _, c := range x.Manifests {
				out = append(out, c.Digest)
			}
			return out
		}
		if man, err := image.ParseManifest(mt, raw); err == nil {
			out = append(out, man.Config.Digest)
			for _, c := range man.Layers {
				out = append(out, c.Digest)
			}
			return out
		}
	}
	if c, err := image.ParseConfig(raw); err == nil {
		return c.DiffIDs
	}
	return nil
}
