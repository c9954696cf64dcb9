package store

import (
	"errors"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"cale/image"
	"cale/layer"
)

// Shared is the files of a store that another process has open, for one that
// works on them beside it: a builder. What it reads or adds must be kept by a
// lease of the other's before it is looked for, and what it added must be told
// to the other by Store.Refresh.
type Shared struct {
	Layers *layer.Store
	files  Store // of which only what needs no more than root is used
}

// OpenShared opens the files of the store below root, which is there. temp is
// a directory on the same filesystem for layers that are being unpacked.
func OpenShared(root, temp string) (*Shared, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	l, err := layer.OpenShared(filepath.Join(root, "layers"), temp)
	if err != nil {
		return nil, err
	}
	return &Shared{Layers: l, files: Store{root: root}}, nil
}

// Stat, Known, Open and Read are those of Store.
func (s *Shared) Stat(d image.Digest) (int64, error) { return s.files.Stat(d) }

// Known is Store.Known.
func (s *Shared) Known(d image.Digest) (int64, error) { return s.files.Known(d) }

// Open is Store.Open.
func (s *Shared) Open(d image.Digest) (*Blob, error) { return s.files.Open(d) }

// Publish moves a file on the store's filesystem, whose content has been
// verified to be d's, in among the blobs.
func (s *Shared) Publish(path string, d image.Digest) error {
	return os.Rename(path, s.files.blobPath(d))
}

// Refresh notes blobs and layers that another process added, so that the next
// sync makes them survive a power cut. It may be told of one again, and of one
// that did not come to be.
func (s *Store) Refresh(blobs, layers []image.Digest) error {
	s.gc.RLock() // what is taken away is taken off the list of what is synced
	defer s.gc.RUnlock()
	var fresh []image.Digest
	err := s.db.View(func(tx *bolt.Tx) error {
		synced := func(key string) bool {
			k, _ := tx.Bucket(bucketSynced).Cursor().Seek([]byte(key))
			return string(k) == key
		}
		for _, d := range blobs {
			if synced(d.String()) {
				continue
			}
			if _, err := s.Stat(d); err == nil {
				fresh = append(fresh, d)
			} else if !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		for _, d := range layers {
			if !synced(layerKey(d)) && s.Layers.Has(d) {
				s.Layers.Refresh(d)
			}
		}
		return nil
	})
	s.mu.Lock()
	s.fresh = append(s.fresh, fresh...)
	s.mu.Unlock()
	return err
}
