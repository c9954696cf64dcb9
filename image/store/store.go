// Package store keeps images: content by digest, names, and what keeps content
// from being collected.
//
// On disk, below one directory (mode 0700): blobs/<alg>/<hex> are complete
// blobs; ingest/<alg>-<hex> are parts of blobs that a later Writer continues;
// layers/ is the layer store; origins/ says of blobs that are not kept where
// they can be had again; meta.db holds names, leases and a list of what is
// safely on disk.
//
// A name is the commit point. Blobs and layers are written without fsync; the
// first name set after them syncs the filesystem once and notes them as synced
// in the same transaction. When the store is opened after a reboot, what is
// not noted may have holes from a power cut: such layers are removed, and such
// blobs are parts again, which a Writer verifies and completes.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"cale/image"
	"cale/layer"
)

// Errors of the store, to be told with errors.Is.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("blob exists")
	ErrBusy     = errors.New("blob is being written")
	ErrLocked   = errors.New("image store is in use by another process")
	ErrFormat   = errors.New("image store has a format this version does not know")
)

// format is the version of what is on disk.
const format = "1"

var (
	bucketSystem = []byte("system")
	bucketNames  = []byte("names")
	bucketLeases = []byte("leases")
	bucketSynced = []byte("synced") // keys: digests of blobs, and "layer " + diffID
	keyFormat    = []byte("format")
	keyBoot      = []byte("boot")
)

// Store is the image store below one directory. It is safe for concurrent use;
// one process at a time has it open.
type Store struct {
	// Layers are the unpacked layers of the images.
	Layers *layer.Store

	root string
	db   *bolt.DB

	// gc is held for writing while unreachable content is found and removed,
	// and for reading while something becomes reachable.
	gc sync.RWMutex

	mu     sync.Mutex
	busy   map[string]chan struct{} // ingests being written, by file name
	pins   map[*Pin]struct{}
	leases map[string][]image.Digest
	fresh  []image.Digest // blobs committed since the last sync

	syncing sync.Mutex // one commit at a time: a name must not overtake its blobs' sync
	sweep   sync.WaitGroup
	stop    context.CancelFunc // of sweep

	closing  sync.Once
	closeErr error

	lease leaseWriter

	originChange sync.Mutex

	sync func() error // makes all that was written to the filesystem last; tests look at what there is then
}

// Open opens the store below root, which it makes if need be.
func Open(root string) (*Store, error) {
	s, err := open(root)
	if err != nil {
		return nil, fmt.Errorf("open image store %s: %w", root, err)
	}
	return s, nil
}

func open(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{"", "blobs/sha256", "blobs/sha512", "ingest", "layers"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			return nil, err
		}
	}
	db, err := bolt.Open(filepath.Join(root, "meta.db"), 0o600, &bolt.Options{
		Timeout: 2 * time.Second, FreelistType: bolt.FreelistMapType, NoFreelistSync: true,
	})
	if errors.Is(err, bolt.ErrTimeout) {
		return nil, ErrLocked
	}
	if err != nil {
		return nil, err
	}
	s := &Store{
		root: root, db: db,
		busy: map[string]chan struct{}{}, pins: map[*Pin]struct{}{}, leases: map[string][]image.Digest{},
	}
	s.sync = s.syncfs
	if s.Layers, err = layer.Open(filepath.Join(root, "layers")); err == nil {
		err = s.recover()
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	s.lease.start(s)
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	// What an earlier process left half done takes its time to remove. An error
	// here will come again, and be told, at the next GC.
	s.sweep.Go(func() { _ = s.Layers.Sweep(ctx) })
	return s, nil
}

// Close writes what is pending and closes the store. It may be called again.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.stop()
		s.sweep.Wait()
		s.closeErr = errors.Join(s.lease.stop(), s.Layers.Close(), s.db.Close())
	})
	return s.closeErr
}

// Root is the store's directory.
func (s *Store) Root() string { return s.root }

// bootID tells one run of the kernel from another.
func bootID() []byte {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return []byte("unknown")
	}
	return bytes.TrimSpace(b)
}

// recover checks the format and, after a reboot, drops what was not synced.
func (s *Store) recover() error {
	boot := bootID()
	known := false
	err := s.db.View(func(tx *bolt.Tx) error {
		sys := tx.Bucket(bucketSystem)
		if sys == nil {
			return nil
		}
		if v := sys.Get(keyFormat); string(v) != format {
			return fmt.Errorf("%w (%q)", ErrFormat, v)
		}
		known = bytes.Equal(sys.Get(keyBoot), boot)
		return nil
	})
	if err != nil {
		return err
	}
	synced := map[string]bool{}
	if !known {
		err = s.db.Update(func(tx *bolt.Tx) error {
			for _, name := range [][]byte{bucketSystem, bucketNames, bucketLeases, bucketSynced} {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			return tx.Bucket(bucketSystem).Put(keyFormat, []byte(format))
		})
		if err != nil {
			return err
		}
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		if err := s.loadLeases(tx); err != nil {
			return err
		}
		return tx.Bucket(bucketSynced).ForEach(func(k, _ []byte) error {
			synced[string(k)] = true
			return nil
		})
	})
	if err != nil {
		return err
	}
	blobs, err := s.Blobs()
	if err != nil {
		return err
	}
	for _, d := range blobs {
		if synced[d.String()] {
			continue
		}
		if known {
			s.fresh = append(s.fresh, d)
		} else if err := os.Rename(s.blobPath(d), s.partPath(d)); err != nil {
			return err
		}
	}
	layers, err := s.Layers.List()
	if err != nil {
		return err
	}
	for _, d := range layers {
		if synced[layerKey(d)] {
			continue
		}
		if known {
			s.Layers.Refresh(d)
		} else if err := s.Layers.Hide(d); err != nil {
			return err
		}
	}
	if known {
		return nil
	}
	// Parts are verified when they are completed, so they may stay as they are.
	return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketSystem).Put(keyBoot, boot) })
}

func layerKey(d image.Digest) string { return "layer " + d.String() }

// Sync makes all blobs and layers that are complete now survive a power cut.
func (s *Store) Sync() error {
	s.gc.RLock()
	defer s.gc.RUnlock()
	return s.commit(nil)
}

// commit syncs what is new, notes it, and runs change in the same transaction.
func (s *Store) commit(change func(tx *bolt.Tx) error) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	blobs := s.fresh
	s.fresh = nil
	s.mu.Unlock()
	layers := s.Layers.Unsynced()
	err := s.commitWith(blobs, layers, change)
	if err != nil {
		s.mu.Lock()
		s.fresh = append(s.fresh, blobs...)
		s.mu.Unlock()
		for _, d := range layers {
			s.Layers.Refresh(d)
		}
	}
	return err
}

func (s *Store) commitWith(blobs, layers []image.Digest, change func(tx *bolt.Tx) error) error {
	if len(blobs)+len(layers) > 0 {
		if err := s.sync(); err != nil {
			return fmt.Errorf("sync image store: %w", err)
		}
	} else if change == nil {
		return nil
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketSynced)
		for _, d := range blobs {
			if err := b.Put([]byte(d.String()), nil); err != nil {
				return err
			}
		}
		for _, d := range layers {
			if err := b.Put([]byte(layerKey(d)), nil); err != nil {
				return err
			}
		}
		if change == nil {
			return nil
		}
		return change(tx)
	})
}

func (s *Store) syncfs() error {
	fd, err := unix.Open(s.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}

func (s *Store) blobPath(d image.Digest) string {
	return filepath.Join(s.root, "blobs", d.Algorithm(), d.Encoded())
}

// Blobs lists the complete blobs.
func (s *Store) Blobs() ([]image.Digest, error) {
	var out []image.Digest
	for _, alg := range []string{"sha256", "sha512"} {
		f, err := os.Open(filepath.Join(s.root, "blobs", alg))
		if err != nil {
			return nil, err
		}
		names, err := f.Readdirnames(-1)
		f.Close()
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if d, err := image.ParseDigest(alg + ":" + n); err == nil {
				out = append(out, d)
			} else if strings.HasPrefix(n, ".") {
				os.Remove(filepath.Join(s.root, "blobs", alg, n))
			}
		}
	}
	return out, nil
}
