// Package snapshot keeps the trees of a build as the image store keeps layers:
// each step's changes are a directory beside the layers, and become a layer,
// without being copied or moved out from under anybody, as soon as its digest
// is known. What images bring is not unpacked again either.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"cale/build/keep"
	"cale/filetree"
	"cale/image"
	"cale/layer"
)

// Store implements containerd's snapshots.Snapshotter. A snapshot's directory
// is layer.Store.Built of its number: "fs", and "work" while it is active; or
// it is a link to the layer that it is.
type Store struct {
	meta   *storage.MetaStore
	layers *layer.Store
	holds  *keep.Holds
	empty  string // a directory without anything

	mu    sync.Mutex        // one change of directories into layers at a time
	named map[string]string // committed snapshots' keys, by BuildKit's name; guarded by mu
}

var _ snapshots.Snapshotter = (*Store)(nil)

// Open opens the snapshots whose book is at dbPath. Directories that the book
// does not know are removed.
func Open(ctx context.Context, dbPath string, layers *layer.Store, holds *keep.Holds) (*Store, error) {
	meta, err := storage.NewMetaStore(dbPath, func(o *bolt.Options) error {
		// After a power cut the build cache begins anew (see the build
		// package), so nothing is gained by waiting for the disk.
		o.NoSync, o.NoFreelistSync, o.FreelistType = true, true, bolt.FreelistMapType
		return nil
	})
	if err != nil {
		return nil, err
	}
	s := &Store{meta: meta, layers: layers, holds: holds, empty: filepath.Join(filepath.Dir(dbPath), "empty"), named: map[string]string{}}
	if err := os.MkdirAll(s.empty, 0o755); err != nil {
		return nil, err
	}
	if err := s.settle(ctx); err != nil {
		meta.Close()
		return nil, fmt.Errorf("build snapshots: %w", err)
	}
	return s, nil
}

// settle brings directories and holds in line with the book.
func (s *Store) settle(ctx context.Context) error {
	known := map[string]string{}
	err := s.meta.WithTransaction(ctx, true, func(ctx context.Context) (err error) {
		if known, err = storage.IDMap(ctx); err != nil {
			return err
		}
		return storage.WalkInfo(ctx, func(_ context.Context, i snapshots.Info) error {
			if i.Kind == snapshots.KindCommitted {
				s.named[nameOf(i.Name)] = i.Name
			}
			return nil
		})
	})
	if err != nil && !errdefs.IsNotFound(err) { // nothing was ever made
		return err
	}
	names, err := s.layers.ListBuilt()
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, ok := known[n]; !ok {
			if err := s.layers.DropBuilt(n); err != nil {
				return err
			}
			continue
		}
		if d := s.layers.Referred(s.layers.Built(n)); !d.IsZero() {
			if err := s.holds.Layer(ctx, d); err != nil {
				return err
			}
		}
	}
	return s.holds.Settle(ctx)
}

// Close implements snapshots.Snapshotter.
func (s *Store) Close() error { return s.meta.Close() }

// Stat implements snapshots.Snapshotter.
func (s *Store) Stat(ctx context.Context, key string) (info snapshots.Info, err error) {
	err = s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		_, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	return info, err
}

// Update implements snapshots.Snapshotter.
func (s *Store) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (out snapshots.Info, err error) {
	err = s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		out, err = storage.UpdateInfo(ctx, info, fieldpaths...)
		return err
	})
	return out, err
}

// Usage implements snapshots.Snapshotter: bytes and inodes of what a snapshot
// has beyond its parent.
func (s *Store) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	var id string
	var info snapshots.Info
	var usage snapshots.Usage
	err := s.meta.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		id, info, usage, err = storage.GetInfo(ctx, key)
		return err
	})
	if err != nil || info.Kind != snapshots.KindActive {
		return usage, err
	}
	du, err := s.usage(ctx, id)
	return snapshots.Usage(du), err
}

// Prepare implements snapshots.Snapshotter.
func (s *Store) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindActive, key, parent, opts)
}

// View implements snapshots.Snapshotter.
func (s *Store) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindView, key, parent, opts)
}

func (s *Store) create(ctx context.Context, kind snapshots.Kind, key, parent string, opts []snapshots.Opt) (mounts []mount.Mount, err error) {
	var made string
	err = s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		sn, err := storage.CreateSnapshot(ctx, kind, key, parent, opts...)
		if err != nil {
			return err
		}
		made = sn.ID
		if err := s.makeDir(sn); err != nil {
			return err
		}
		mounts, err = s.mounts(sn)
		return err
	})
	if err != nil {
		if made != "" {
			err = errors.Join(err, s.layers.DropBuilt(made))
		}
		return nil, err
	}
	return mounts, nil
}

// makeDir makes a snapshot's directory. The tree's root is as the parent's.
func (s *Store) makeDir(sn storage.Snapshot) error {
	dir := s.layers.Built(sn.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "fs"), 0o755); err != nil {
		return err
	}
	if sn.Kind == snapshots.KindActive {
		if err := os.Mkdir(filepath.Join(dir, "work"), 0o711); err != nil {
			return err
		}
	}
	if len(sn.ParentIDs) == 0 {
		return nil
	}
	if d := s.layers.Referred(s.layers.Built(sn.ParentIDs[0])); !d.IsZero() {
		if err := s.layers.Show(d); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(s.fs(sn.ParentIDs[0]), &st); err != nil {
		return err
	}
	if err := os.Chown(filepath.Join(dir, "fs"), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(filepath.Join(dir, "fs"), st.Mode&0o7777)
}

// Mounts implements snapshots.Snapshotter.
func (s *Store) Mounts(ctx context.Context, key string) (mounts []mount.Mount, err error) {
	err = s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		sn, err := storage.GetSnapshot(ctx, key)
		if err == nil {
			mounts, err = s.mounts(sn)
		}
		return err
	})
	return mounts, err
}

func (s *Store) fs(id string) string { return filepath.Join(s.layers.Built(id), "fs") }

// lower lists the numbers of a snapshot's parents that overlayfs is to stack, the
// top one first. A parent that hides all below it ends the list, as overlayfs
// has no mark for that on a root; a layer that is there twice is named once, as
// in layer.Store.Lower.
func (s *Store) lower(sn storage.Snapshot) ([]string, error) {
	var out []string
	seen := map[image.Digest]bool{}
	for _, id := range sn.ParentIDs {
		dir := s.layers.Built(id)
		if d := s.layers.Referred(dir); !d.IsZero() {
			if err := s.layers.Show(d); err != nil {
				return nil, err
			}
			if seen[d] {
				continue
			}
			seen[d] = true
		}
		out = append(out, id)
		if layer.Opaque(dir) {
			break
		}
	}
	return out, nil
}

// mounts is how a snapshot is seen.
func (s *Store) mounts(sn storage.Snapshot) ([]mount.Mount, error) {
	var lower []string
	ids, err := s.lower(sn)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		lower = append(lower, s.fs(id))
	}
	if n := len(ids); n > 0 && layer.HasWhiteouts(s.layers.Built(ids[n-1])) {
		// Overlayfs wants something below, to hide the whiteouts.
		lower = append(lower, s.empty)
	}
	if sn.Kind == snapshots.KindView {
		switch len(lower) {
		case 0:
			return bind(s.fs(sn.ID), "ro"), nil
		case 1:
			return bind(lower[0], "ro"), nil
		}
		return overlaid("lowerdir=" + strings.Join(lower, ":")), nil
	}
	if len(lower) == 0 {
		return bind(s.fs(sn.ID), "rw"), nil
	}
	return overlaid("workdir="+filepath.Join(s.layers.Built(sn.ID), "work"), "upperdir="+s.fs(sn.ID),
		"lowerdir="+strings.Join(lower, ":")), nil
}

func bind(dir, mode string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: dir, Options: []string{mode, "rbind"}}}
}

func overlaid(options ...string) []mount.Mount {
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: append(options, "index=off")}}
}

// nameOf is the name that BuildKit knows a snapshot by: the book's keys have a
// namespace and a number in front.
func nameOf(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }

// Commit implements snapshots.Snapshotter.
func (s *Store) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	var sn storage.Snapshot
	err := s.meta.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		sn, err = storage.GetSnapshot(ctx, key)
		return err
	})
	if err != nil {
		return err
	}
	// It takes its time, and holds up no other snapshot.
	usage, err := s.settled(ctx, sn)
	if err != nil {
		return fmt.Errorf("commit snapshot %s: %w", name, err)
	}
	err = s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, err := storage.CommitActive(ctx, key, name, usage, opts...)
		return err
	})
	if err == nil {
		s.mu.Lock()
		s.named[nameOf(name)] = name
		s.mu.Unlock()
	}
	return err
}

// settled leaves in a snapshot's tree what it changed, and counts it.
func (s *Store) settled(ctx context.Context, sn storage.Snapshot) (u snapshots.Usage, err error) {
	if d := s.layers.Referred(s.layers.Built(sn.ID)); !d.IsZero() {
		u.Size, err = s.layers.Size(d)
		return u, err
	}
	upper, err := filetree.Open(s.fs(sn.ID))
	if err != nil {
		return u, err
	}
	defer upper.Close()
	var lower []*filetree.Root
	defer func() {
		for _, r := range lower {
			r.Close()
		}
	}()
	ids, err := s.lower(sn)
	if err != nil {
		return u, err
	}
	for _, id := range ids {
		r, err := filetree.Open(s.fs(id))
		if err != nil {
			return u, err
		}
		lower = append(lower, r)
	}
	sum, err := layer.Settle(ctx, upper, lower)
	return snapshots.Usage{Size: sum.Bytes, Inodes: sum.Files}, err
}

// usage is what a snapshot's own tree takes. The walk takes its time: it holds
// up no other snapshot.
func (s *Store) usage(ctx context.Context, id string) (fs.Usage, error) {
	if d := s.layers.Referred(s.layers.Built(id)); !d.IsZero() {
		size, err := s.layers.Size(d)
		return fs.Usage{Size: size}, err
	}
	return fs.DiskUsage(ctx, s.fs(id))
}

// Remove implements snapshots.Snapshotter.
func (s *Store) Remove(ctx context.Context, key string) error {
	var id string
	err := s.meta.WithTransaction(ctx, true, func(ctx context.Context) (err error) {
		id, _, err = storage.Remove(ctx, key)
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	d := s.layers.Referred(s.layers.Built(id))
	if s.named[nameOf(key)] == key {
		delete(s.named, nameOf(key))
	}
	s.mu.Unlock()
	if err := s.layers.DropBuilt(id); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	if d.IsZero() {
		return nil
	}
	return s.holds.DropLayer(ctx, d)
}

// Walk implements snapshots.Snapshotter.
func (s *Store) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, fn, filters...)
	})
}

// mergeLabel is on snapshots that BuildKit put together from several others.
const mergeLabel = "buildkit.mergeUsageSize"

// Own tells whether BuildKit's name is that of a committed snapshot whose layer
// is its own tree.
func (s *Store) Own(ctx context.Context, name string) bool {
	s.mu.Lock()
	key, ok := s.named[name]
	s.mu.Unlock()
	if !ok {
		return false
	}
	info, err := s.Stat(ctx, key)
	_, merged := info.Labels[mergeLabel]
	return err == nil && !merged
}

// became notes that a committed snapshot's tree, in dir, is the layer diffID,
// which has just been computed from it. It becomes the layer that images are
// run from, unless that is there already.
func (s *Store) became(ctx context.Context, name, dir string, diffID image.Digest) error {
	s.mu.Lock()
	key := s.named[name]
	s.mu.Unlock()
	usage, err := s.Usage(ctx, key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.layers.Referred(dir).IsZero() {
		return s.holds.Tell(ctx)
	}
	if err := s.holds.Layer(ctx, diffID); err != nil {
		return err
	}
	// Overlayfs is done with it: the snapshot is committed and unmounted.
	if err := os.RemoveAll(filepath.Join(dir, "work")); err != nil {
		return errors.Join(err, s.holds.DropLayer(ctx, diffID))
	}
	done, err := s.layers.Exchange(dir, diffID, usage.Size)
	if err != nil || !done {
		return errors.Join(err, s.holds.DropLayer(ctx, diffID), s.holds.Tell(ctx))
	}
	return s.holds.Added(ctx, keep.Content{Layers: s.layers.Unsynced()})
}
