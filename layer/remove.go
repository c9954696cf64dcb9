package layer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/image"
)

// Remove removes a layer. No container may be using it.
func (l *Store) Remove(diffID image.Digest) error {
	temp, err := l.hide(diffID)
	if err != nil {
		return err
	}
	return l.discard(temp)
}

// Hide takes a layer out of sight at once and leaves its files to Sweep.
func (l *Store) Hide(diffID image.Digest) error {
	_, err := l.hide(diffID)
	return err
}

func (l *Store) hide(diffID image.Digest) (string, error) {
	temp := filepath.Join(l.dir, tempPrefix+"gone-"+l.tag[len(tempPrefix):]+strconv.FormatUint(l.seq.Add(1), 10))
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, diffID)
	delete(l.fitted, diffID)
	if diffID.IsZero() {
		return "", fmt.Errorf("%w: empty digest", ErrNotFound)
	}
	// Who uses it has mounts of its own.
	if err := unmount(filepath.Join(l.path(diffID), "fs")); err != nil {
		return "", fmt.Errorf("remove layer %s: %w", diffID, err)
	}
	err := unix.Renameat2(unix.AT_FDCWD, l.path(diffID), unix.AT_FDCWD, temp, unix.RENAME_NOREPLACE)
	if err == unix.ENOENT {
		return "", fmt.Errorf("%w: %s", ErrNotFound, diffID)
	}
	if err != nil {
		return "", fmt.Errorf("remove layer %s: %w", diffID, err)
	}
	return temp, nil
}

// Sweep removes the files of hidden layers and what earlier processes left
// half done.
func (l *Store) Sweep(ctx context.Context) error {
	names, err := l.names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if !strings.HasPrefix(n, tempPrefix) || strings.HasPrefix(n, l.tag) {
			continue // l.tag: an Unpack of ours that is still running
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.discard(filepath.Join(l.dir, n)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Store) discard(path string) error {
	l.sweep.Lock()
	defer l.sweep.Unlock()
	// Of a link that a builder's directory has become the layer is another's.
	if fi, err := os.Lstat(path); err == nil && fi.IsDir() {
		if err := unmount(filepath.Join(path, "fs")); err != nil {
			return err
		}
	}
	root, err := filetree.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(filepath.Base(path))
}
