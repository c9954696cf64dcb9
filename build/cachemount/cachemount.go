// Package cachemount takes what steps keep in cache mounts (RUN
// --mount=type=cache) out of a builder, as an archive, and brings it into one.
package cachemount

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"

	"cale/filetree"
	"cale/layer"
)

// The archive is a tar of one file for each mount, which is a tar itself,
// compressed with zstd. Records of its header say whose it is.
const (
	recordID    = "CALE.cachemount.id"
	recordOwned = "CALE.cachemount.owned" // it stands on a directory that was given an owner or a mode
)

// indexKey is where BuildKit notes, on a record of its cache, whose cache mount
// it is: an id and, with a colon, the record that it stands on.
const indexKey = "cache-dir"

// Mounts are a builder's cache mounts.
type Mounts struct {
	cache cache.Manager
	dir   string // of those that were brought and that no step had yet
}

// New keeps what is brought in dir, until a step mounts it. dir is this process's
// alone: what an earlier one was still writing there is removed.
func New(c cache.Manager, dir string) (*Mounts, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), half) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	return &Mounts{c, dir}, nil
}

// half begins the names of files that are still written.
const half = "."

// mount is one cache mount.
type mount struct {
	ref, id string
	owned   bool
	used    time.Time
}

func (m mount) file() string {
	sum := sha256.Sum256([]byte(fmt.Sprint(m.owned, m.id)))
	return hex.EncodeToString(sum[:])
}

// list lists the mounts; of several with one id, as sharing=private leaves
// them, the one that was used last.
func (m *Mounts) list(ctx context.Context) ([]mount, error) {
	records, err := m.cache.Search(ctx, indexKey+":", true)
	if err != nil {
		return nil, err
	}
	usage, err := m.cache.DiskUsage(ctx, client.DiskUsageInfo{})
	if err != nil {
		return nil, err
	}
	known := map[string]*client.UsageInfo{}
	for _, u := range usage {
		known[u.ID] = u
	}
	found := map[string]mount{}
	for _, r := range records {
		u := known[r.ID()]
		if u == nil {
			continue
		}
		one := mount{ref: r.ID(), id: r.GetString(indexKey), used: u.CreatedAt}
		if u.LastUsedAt != nil {
			one.used = *u.LastUsedAt
		}
		for _, p := range u.Parents {
			if id, ok := strings.CutSuffix(one.id, ":"+p); ok {
				one.id, one.owned = id, true
			}
		}
		if other, ok := found[one.file()]; !ok || other.used.Before(one.used) {
			found[one.file()] = one
		}
	}
	var out []mount
	for _, one := range found {
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b mount) int { return strings.Compare(a.id, b.id) })
	return out, nil
}

// name is an id as a Dockerfile has it: BuildKit puts a namespace and a slash
// in front.
func name(id string) string { return id[strings.IndexByte(id, '/')+1:] }

// Export writes the mounts of these ids, or all of them, to w. One that a step
// is writing to is an error.
func (m *Mounts) Export(ctx context.Context, w io.Writer, ids []string) error {
	all, err := m.list(ctx)
	if err != nil {
		return fmt.Errorf("cache mounts: %w", err)
	}
	for _, id := range ids {
		if !slices.ContainsFunc(all, func(c mount) bool { return name(c.id) == id }) {
			return fmt.Errorf("there is no cache mount %q", id)
		}
	}
	tw := tar.NewWriter(w)
	for _, one := range all {
		if len(ids) > 0 && !slices.Contains(ids, name(one.id)) {
			continue
		}
		if err := m.export(ctx, tw, one); err != nil {
			return fmt.Errorf("cache mount %q: %w", name(one.id), err)
		}
	}
	return tw.Close()
}

func (m *Mounts) export(ctx context.Context, tw *tar.Writer, one mount) (err error) {
	ref, err := m.cache.GetMutable(ctx, one.ref)
	// A step that has ended lets it go a moment later.
	for end := time.Now().Add(patience); errors.Is(err, cache.ErrLocked) && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
		ref, err = m.cache.GetMutable(ctx, one.ref)
	}
	if errors.Is(err, cache.ErrLocked) {
		return errors.New("a step has it in use")
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ref.Release(context.WithoutCancel(ctx))) }()
	// A tar file says its size before its content.
	spool, err := os.CreateTemp(m.dir, half+"export-")
	if err != nil {
		return err
	}
	defer spool.Close()
	if err := os.Remove(spool.Name()); err != nil {
		return err
	}
	if err := in(ctx, ref, true, nil, func(root *filetree.Root) error { return pack(ctx, spool, root) }); err != nil {
		return err
	}
	size, err := spool.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	h := &tar.Header{
		Name: one.file() + ".tar.zst", Mode: 0o600, Size: size, ModTime: one.used.Truncate(time.Second), Format: tar.FormatPAX,
		PAXRecords: map[string]string{recordID: one.id, recordOwned: fmt.Sprint(one.owned)},
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, io.NewSectionReader(spool, 0, size))
	return err
}

const patience = 5 * time.Second

func pack(ctx context.Context, w io.Writer, root *filetree.Root) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return err
	}
	return errors.Join(layer.Tar(ctx, z, root, layer.TarOptions{Name: "."}), z.Close())
}

// in runs do with the tree of a mount.
func in(ctx context.Context, ref cache.MutableRef, readonly bool, g session.Group, do func(*filetree.Root) error) (err error) {
	mountable, err := ref.Mount(ctx, readonly, g)
	if err != nil {
		return err
	}
	local := snapshot.LocalMounter(mountable)
	at, err := local.Mount()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, local.Unmount()) }()
	root, err := filetree.Open(at)
	if err != nil {
		return err
	}
	defer root.Close()
	return do(root)
}

// Import takes what Export wrote. A mount that is here already stays as it is;
// the others are filled when a step mounts them first.
func (m *Mounts) Import(ctx context.Context, r io.Reader) error {
	here, err := m.list(ctx)
	if err != nil {
		return fmt.Errorf("cache mounts: %w", err)
	}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("archive of cache mounts: %w", err)
		}
		one := mount{id: h.PAXRecords[recordID], owned: h.PAXRecords[recordOwned] == "true"}
		if one.id == "" {
			return fmt.Errorf("archive of cache mounts: %q is none", h.Name)
		}
		if slices.ContainsFunc(here, func(c mount) bool { return c.file() == one.file() }) {
			continue
		}
		if err := m.bring(ctx, one, tr); err != nil {
			return fmt.Errorf("cache mount %q: %w", name(one.id), err)
		}
	}
}

func (m *Mounts) bring(ctx context.Context, one mount, r io.Reader) error {
	f, err := os.CreateTemp(m.dir, half+"import-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Close(), ctx.Err()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(m.dir, one.file()))
}

// Manager is the cache with new cache mounts filled from what was brought.
func (m *Mounts) Manager() cache.Manager { return manager{m.cache, m} }

type manager struct {
	cache.Manager
	mounts *Mounts
}

// New implements cache.Manager.
func (c manager) New(ctx context.Context, parent cache.ImmutableRef, g session.Group, opts ...cache.RefOption) (cache.MutableRef, error) {
	ref, err := c.Manager.New(ctx, parent, g, opts...)
	if err != nil || !c.mounts.waiting() {
		return ref, err
	}
	f := &fresh{MutableRef: ref, ctx: ctx, mounts: c.mounts, group: g}
	if parent != nil {
		f.parent = parent.ID()
	}
	return f, nil
}

func (m *Mounts) waiting() bool {
	list, err := os.ReadDir(m.dir)
	return err == nil && len(list) > 0
}

// fresh is a record that has just been made. It is known for a cache mount when
// it is noted as one.
type fresh struct {
	cache.MutableRef
	ctx    context.Context // of the step that it is made for
	mounts *Mounts
	group  session.Group
	parent string
}

// SetString implements cache.RefMetadata. The record is filled before it is noted
// as a cache mount: from then on steps take it as it is.
func (f *fresh) SetString(key, value, index string) error {
	if key != indexKey {
		return f.MutableRef.SetString(key, value, index)
	}
	one := mount{id: value}
	if f.parent != "" {
		one.id, one.owned = strings.CutSuffix(value, ":"+f.parent)
	}
	path := filepath.Join(f.mounts.dir, one.file())
	if err := f.fill(path); err != nil {
		err = fmt.Errorf("fill cache mount %q with what was imported: %w", name(one.id), err)
		if f.ctx.Err() == nil {
			// It would fail again, and with it every build that has the mount.
			err = errors.Join(err, os.Remove(path))
		}
		return err
	}
	if err := f.MutableRef.SetString(key, value, index); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// fill fills it from a file, which need not be there.
func (f *fresh) fill(path string) error {
	r, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	return in(f.ctx, f.MutableRef, false, f.group, func(root *filetree.Root) error {
		_, err := layer.Extract(f.ctx, root, z, layer.ExtractOptions{})
		return err
	})
}

// maxWindow bounds the memory that an archive may ask for, in bytes.
const maxWindow = 128 << 20
