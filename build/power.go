package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cale/atomicfile"
	"cale/build/keep"
)

// The file "open" in the cache's directory holds the kernel's boot id while a
// builder uses the cache, and is removed, after a sync, when it ends.

func (b *books) openFile() string { return filepath.Join(b.dir, "open") }

// begin throws away a cache that was in use when the machine went down.
func (b *books) begin(ctx context.Context) error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	old, err := os.ReadFile(b.openFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	switch {
	case err != nil: // it was closed
	case bytes.Equal(old, boot):
		// A builder was killed, and may not have told of the last that it made.
		held, err := b.holds.Keeper.Held(ctx)
		if err != nil {
			return err
		}
		if err := b.holds.Added(ctx, held); err != nil {
			return err
		}
	default:
		if err := b.forget(ctx); err != nil {
			return err
		}
	}
	return atomicfile.Write(b.openFile(), boot, 0o600, true)
}

// forget removes the cache's books, and last the file that says that they are
// of no use; the trees that they knew of go when the
// snapshots are opened.
func (b *books) forget(ctx context.Context) error {
	held, err := b.holds.Keeper.Held(ctx)
	if err != nil {
		return err
	}
	if err := b.holds.Keeper.Release(ctx, held); err != nil {
		return err
	}
	list, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Name() == filepath.Base(b.openFile()) {
			continue // written anew
		}
		if err := os.RemoveAll(filepath.Join(b.dir, e.Name())); err != nil {
			return err
		}
	}
	b.holds, err = keep.OpenHolds(ctx, b.holds.Keeper)
	return err
}

// end says that the cache is whole.
func (b *books) end() error {
	fd, err := unix.Open(b.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return err
	}
	return os.Remove(b.openFile())
}
