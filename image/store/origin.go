package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cale/atomicfile"
	"cale/image"
)

// Origin tells where a layer's blob, which is not kept beside the unpacked
// layer, can be had again, the same to the bit.
type Origin struct {
	Blob   image.Descriptor
	DiffID image.Digest
	From   []image.Reference // repositories that have it, the latest first
}

// maxFrom bounds how many repositories are remembered.
const maxFrom = 4

// originRecord is an Origin as the file origins/<alg>-<hex> of the blob holds it.
type originRecord struct {
	Blob       image.Descriptor `json:"blob"`
	DiffID     image.Digest     `json:"diffID"`
	Repository string           `json:"repository"` // the first of them; the only one in what earlier versions wrote
	Others     []string         `json:"others,omitempty"`
}

func (s *Store) originPath(d image.Digest) string {
	return filepath.Join(s.root, "origins", d.Algorithm()+"-"+d.Encoded())
}

// SetOrigin notes where a blob comes from, beside what was noted before. Drop and
// GC may remove it from then on, once its layer is unpacked.
func (s *Store) SetOrigin(o Origin) error {
	s.originChange.Lock()
	defer s.originChange.Unlock()
	r := originRecord{Blob: o.Blob, DiffID: o.DiffID}
	if before, err := s.Origin(o.Blob.Digest); err == nil && before.DiffID == o.DiffID {
		o.From = append(slices.Clone(o.From), before.From...)
	}
	for _, ref := range o.From {
		if name := ref.Name(); r.Repository == "" {
			r.Repository = name
		} else if name != r.Repository && !slices.Contains(r.Others, name) && len(r.Others) < maxFrom-1 {
			r.Others = append(r.Others, name)
		}
	}
	raw, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(filepath.Join(s.root, "origins"), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(s.originPath(o.Blob.Digest), raw, 0o600, true)
	}
	if err != nil {
		return fmt.Errorf("note where blob %s comes from: %w", o.Blob.Digest, err)
	}
	return nil
}

// Origin is what SetOrigin noted, or ErrNotFound.
func (s *Store) Origin(d image.Digest) (Origin, error) {
	if d.IsZero() {
		return Origin{}, missing(d)
	}
	raw, err := os.ReadFile(s.originPath(d))
	if errors.Is(err, os.ErrNotExist) {
		return Origin{}, missing(d)
	}
	var r originRecord
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	o := Origin{Blob: r.Blob, DiffID: r.DiffID}
	for _, name := range append([]string{r.Repository}, r.Others...) {
		var ref image.Reference
		if err == nil {
			ref, err = image.ParseReference(name)
		}
		o.From = append(o.From, ref)
	}
	if err != nil {
		return Origin{}, fmt.Errorf("where blob %s comes from: %w", d, err)
	}
	return o, nil
}

// Drop removes a blob that has an Origin, once a power cut can't take its
// unpacked layer any more. Other blobs stay.
func (s *Store) Drop(d image.Digest) error {
	err := s.drop(d)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("drop blob %s: %w", d, err)
	}
	return nil
}

func (s *Store) drop(d image.Digest) error {
	o, err := s.Origin(d)
	if err != nil {
		return err
	}
	if !s.Layers.Has(o.DiffID) {
		return errors.New("its layer is not unpacked")
	}
	if err := s.Sync(); err != nil {
		return err
	}
	return s.Remove(d)
}

// Keep forgets where a blob comes from, so that it stays if it is here.
func (s *Store) Keep(d image.Digest) error {
	if err := os.Remove(s.originPath(d)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keep blob %s: %w", d, err)
	}
	return nil
}

// Known is the size of a blob that is here or has an Origin; otherwise
// ErrNotFound.
func (s *Store) Known(d image.Digest) (int64, error) {
	size, err := s.Stat(d)
	if !errors.Is(err, ErrNotFound) {
		return size, err
	}
	o, err := s.Origin(d)
	return o.Blob.Size, err
}

// HasOrigins tells whether any blob has an Origin.
func (s *Store) HasOrigins() bool {
	all, err := s.origins()
	return err == nil && len(all) > 0
}

// origins lists the blobs that have an Origin.
func (s *Store) origins() ([]image.Digest, error) {
	list, err := os.ReadDir(filepath.Join(s.root, "origins"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []image.Digest
	for _, e := range list {
		if d, err := image.ParseDigest(strings.Replace(e.Name(), "-", ":", 1)); err == nil {
			out = append(out, d)
		}
	}
	return out, nil
}
