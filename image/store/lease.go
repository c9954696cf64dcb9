package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	bolt "go.etcd.io/bbolt"

	"cale/image"
)

// Pin keeps content from being collected while this process works on it: a
// pull pins each digest before it looks whether the blob is there.
type Pin struct {
	s   *Store
	who string
	set map[image.Digest]struct{}
}

// Pin opens an empty pin for work that who names to users. It must be released.
func (s *Store) Pin(who string) *Pin {
	p := &Pin{s: s, who: who, set: map[image.Digest]struct{}{}}
	s.mu.Lock()
	s.pins[p] = struct{}{}
	s.mu.Unlock()
	return p
}

// Add adds digests of blobs or of unpacked layers. What is pinned when Add
// returns is collected before that or not at all.
func (p *Pin) Add(all ...image.Digest) {
	p.s.gc.RLock()
	defer p.s.gc.RUnlock()
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	for _, d := range all {
		p.set[d] = struct{}{}
	}
}

// Release ends the pin.
func (p *Pin) Release() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	delete(p.s.pins, p)
}

// Only begins the ids of leases that keep the digests they name and not what
// those refer to: a build cache has each of its parts counted by itself.
const Only = "only/"

// AddLease keeps digests, and all they refer to, from being collected until
// RemoveLease: those of manifests or indexes, of image configs (whose unpacked
// layers stay), of other blobs, or diffIDs. It replaces a lease of that id. It
// holds at once, and on disk shortly after: whoever owns leases renews them
// when it starts, before it collects.
func (s *Store) AddLease(id string, digests ...image.Digest) error {
	if id == "" || len(id) > maxName {
		return errors.New("lease: an id has 1 to 1024 bytes")
	}
	s.gc.RLock()
	defer s.gc.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.leases[id]; ok && slices.Equal(old, digests) {
		return nil
	}
	s.leases[id] = slices.Clone(digests)
	s.lease.changed(id)
	return nil
}

// RemoveLease ends a lease. That there is none is no error.
func (s *Store) RemoveLease(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.leases[id]; !ok {
		return nil
	}
	delete(s.leases, id)
	s.lease.changed(id)
	return nil
}

// Leases is a copy of all leases.
func (s *Store) Leases() map[string][]image.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.leases)
}

func (s *Store) loadLeases(tx *bolt.Tx) error {
	return tx.Bucket(bucketLeases).ForEach(func(k, v []byte) error {
		var all []image.Digest
		if err := json.Unmarshal(v, &all); err != nil {
			return fmt.Errorf("lease %s: %w", k, err)
		}
		s.leases[string(k)] = all
		return nil
	})
}

// leaseWriter writes leases in the background, many in one transaction: the
// start of a container must not wait for the disk.
type leaseWriter struct {
	s     *Store
	dirty map[string]struct{} // guarded by s.mu
	wake  chan struct{}
	quit  chan struct{}
	done  sync.WaitGroup
	err   error // of the last write, after done
}

func (w *leaseWriter) start(s *Store) {
	w.s, w.dirty = s, map[string]struct{}{}
	w.wake, w.quit = make(chan struct{}, 1), make(chan struct{})
	w.done.Go(func() {
		for {
			select {
			case <-w.wake:
				w.err = w.flush()
			case <-w.quit:
				w.err = w.flush()
				return
			}
		}
	})
}

// changed is called with s.mu held.
func (w *leaseWriter) changed(id string) {
	w.dirty[id] = struct{}{}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *leaseWriter) flush() error {
	w.s.mu.Lock()
	change := map[string][]byte{}
	for id := range w.dirty {
		if all, ok := w.s.leases[id]; ok {
			v, err := json.Marshal(all)
			if err != nil {
				w.s.mu.Unlock()
				return err
			}
			change[id] = v
		} else {
			change[id] = nil
		}
	}
	clear(w.dirty)
	w.s.mu.Unlock()
	if len(change) == 0 {
		return nil
	}
	err := w.s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLeases)
		for id, v := range change {
			if v == nil {
				if err := b.Delete([]byte(id)); err != nil {
					return err
				}
			} else if err := b.Put([]byte(id), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		// Disk full, most likely: the next change tries again.
		w.s.mu.Lock()
		for id := range change {
			w.dirty[id] = struct{}{}
		}
		w.s.mu.Unlock()
		return fmt.Errorf("write leases: %w", err)
	}
	return nil
}

func (w *leaseWriter) stop() error {
	close(w.quit)
	w.done.Wait()
	return w.err
}
