package store

import (
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"cale/image"
)

// Name is one name and what it points at.
type Name struct {
	Name    string
	Target  image.Descriptor
	Updated time.Time
	// Owner is for whom it was set; "" is whoever uses the store by hand.
	Owner string
}

type nameRecord struct {
	Target  image.Descriptor `json:"target"`
	Updated time.Time        `json:"updated"`
	Owner   string           `json:"owner,omitempty"`
}

// maxName bounds a name, in bytes.
const maxName = 1024

// SetName points name at target, which must be in the store. It returns when
// the name and everything complete in the store now would survive a power cut.
func (s *Store) SetName(name string, target image.Descriptor) error {
	return s.SetNameFor("", name, target)
}

// SetNameFor is SetName for an owner. A name that is somebody else's stays so.
func (s *Store) SetNameFor(owner, name string, target image.Descriptor) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("set name: a name has 1 to %d bytes, not %d", maxName, len(name))
	}
	s.gc.RLock()
	defer s.gc.RUnlock()
	if _, err := s.Stat(target.Digest); err != nil {
		return fmt.Errorf("set name %s: %w", name, err)
	}
	err := s.commit(func(tx *bolt.Tx) error {
		r, b := nameRecord{target, time.Now().UTC(), owner}, tx.Bucket(bucketNames)
		if old := b.Get([]byte(name)); old != nil && owner != "" {
			var was nameRecord
			if err := json.Unmarshal(old, &was); err != nil {
				return err
			}
			r.Owner = was.Owner
		}
		v, err := json.Marshal(r)
		if err != nil {
			return err
		}
		return b.Put([]byte(name), v)
	})
	if err != nil {
		return fmt.Errorf("set name %s: %w", name, err)
	}
	return nil
}

// RemoveName removes a name; what it pointed at stays until GC.
func (s *Store) RemoveName(name string) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketNames)
		if b.Get([]byte(name)) == nil {
			return ErrNotFound
		}
		return b.Delete([]byte(name))
	})
	if err != nil {
		return fmt.Errorf("remove name %s: %w", name, err)
	}
	return nil
}

// Resolve is what a name points at, or ErrNotFound.
func (s *Store) Resolve(name string) (image.Descriptor, error) {
	var r nameRecord
	err := s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketNames).Get([]byte(name))
		if v == nil {
			return ErrNotFound
		}
		return json.Unmarshal(v, &r)
	})
	if err != nil {
		return image.Descriptor{}, fmt.Errorf("image %s: %w", name, err)
	}
	return r.Target, nil
}

// Names lists all names, sorted.
func (s *Store) Names() ([]Name, error) {
	var out []Name
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketNames).ForEach(func(k, v []byte) error {
			var r nameRecord
			if err := json.Unmarshal(v, &r); err != nil {
				return fmt.Errorf("name %s: %w", k, err)
			}
			out = append(out, Name{string(k), r.Target, r.Updated, r.Owner})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list names: %w", err)
	}
	return out, nil
}
