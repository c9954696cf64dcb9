package layer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/image"
)

// OpenShared opens the layers of a Store that another process has open: that
// one alone removes layers, and must be kept from removing those that are used
// here (an image store's lease) before they are looked for. temp is a
// directory on the same filesystem for what is being unpacked.
func OpenShared(dir, temp string) (*Store, error) {
	l, err := Open(dir)
	if err != nil {
		return nil, err
	}
	l.temp, l.shared = temp, true
	return l, nil
}

// Path is where a layer's directory is; see Store for what it holds.
func (l *Store) Path(diffID image.Digest) string { return l.path(diffID) }

// Built is the path of a directory that will become a layer, by Exchange: it is
// named by whoever builds and lies beside the layers. Nobody but its builder
// removes it.
func (l *Store) Built(name string) string { return filepath.Join(l.dir, builtPrefix+name) }

const builtPrefix = "built-"

// Exchange makes the directory at path, one of Built, the layer diffID, and
// leaves a link to the layer in its place, in one step: who mounts path finds
// the tree at every moment. The caller vouches for the digest: it has just
// computed it from this tree. done is false if the layer was there already;
// then path stays what it is.
func (l *Store) Exchange(path string, diffID image.Digest, size int64) (done bool, err error) {
	if l.Has(diffID) {
		return false, nil
	}
	done, err = l.exchange(path, diffID, size)
	if err != nil {
		return false, fmt.Errorf("make layer %s of %s: %w", diffID, filepath.Base(path), err)
	}
	if !done {
		return false, nil
	}
	l.mu.Lock()
	l.fresh = append(l.fresh, diffID)
	l.mu.Unlock()
	return true, nil
}

func (l *Store) exchange(path string, diffID image.Digest, size int64) (done bool, err error) {
	if err := os.WriteFile(filepath.Join(path, "size"), strconv.AppendInt(nil, size, 10), 0o600); err != nil {
		return false, err
	}
	// A link to its own name is what becomes a link to the layer when the two
	// change places.
	to := l.path(diffID)
	for range placeTries {
		err := os.Symlink(dirName(diffID), to)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return false, err
		}
		// What is there was left by an exchange that was cut short, which serves
		// as well, unless another process has just unpacked the layer.
		if l.Has(diffID) {
			return false, nil
		}
		err = unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
		if err == unix.ENOENT { // the link was taken for one that was left over
			continue
		}
		if err != nil {
			return false, errors.Join(err, removeLink(to))
		}
		if l.Referred(path) == diffID {
			return true, nil
		}
		// Between the look and the exchange another process put the layer there,
		// which is at path now: it goes back, as it may be used by its name. Both
		// trees are the same layer's, so nobody saw anything else meanwhile.
		if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE); err != nil {
			return false, err
		}
		return false, nil
	}
	return false, fmt.Errorf("%s is given away and taken back all the time", filepath.Base(to))
}

// Refer replaces the directory at path, one of Built that nobody uses yet, by a
// link to a layer that is there.
func (l *Store) Refer(path string, diffID image.Digest) error {
	link := l.tempPath()
	// The link is relative to where it will be.
	if err := os.Symlink(dirName(diffID), link); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, link, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE); err != nil {
		os.Remove(link)
		return err
	}
	// It is the link now; what is left of the directory is swept later.
	_ = l.discard(link)
	return nil
}

// Referred is the layer that the directory at path, one of Built, has become;
// the zero digest if none.
func (l *Store) Referred(path string) image.Digest {
	to, err := os.Readlink(path)
	if err != nil {
		return image.Digest{}
	}
	d, err := parseDir(to)
	if err != nil {
		return image.Digest{}
	}
	return d
}

// Opaque tells whether a directory in a layer's form hides all below it.
func Opaque(path string) bool {
	_, err := os.Lstat(filepath.Join(path, "opaque"))
	return err == nil
}

// NoteWhiteouts looks for whiteouts in a layer, and notes that it has some:
// where nothing lies below it, they would be seen if it were not shown by
// overlayfs.
func (l *Store) NoteWhiteouts(diffID image.Digest) error {
	if err := l.Show(diffID); err != nil {
		return err
	}
	root, err := filetree.Open(filepath.Join(l.path(diffID), "fs"))
	if err != nil {
		return err
	}
	defer root.Close()
	err = root.Walk("", func(e *filetree.Entry) error {
		if isWhiteout(&e.Stat) {
			return errFound
		}
		return nil
	})
	if err == errFound {
		return os.WriteFile(filepath.Join(l.path(diffID), "whiteouts"), nil, 0o600)
	}
	return err
}

var errFound = errors.New("found")

// HasWhiteouts tells whether NoteWhiteouts noted any in a directory in a
// layer's form.
func HasWhiteouts(path string) bool {
	_, err := os.Lstat(filepath.Join(path, "whiteouts"))
	return err == nil
}

// ListBuilt lists the names of Built that are there.
func (l *Store) ListBuilt() ([]string, error) {
	names, err := l.names()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range names {
		if len(n) > len(builtPrefix) && n[:len(builtPrefix)] == builtPrefix {
			out = append(out, n[len(builtPrefix):])
		}
	}
	return out, nil
}

// DropBuilt removes a directory of Built, or the link that it has become.
func (l *Store) DropBuilt(name string) error {
	path := l.Built(name)
	gone := l.tempPath()
	if err := os.Rename(path, gone); err != nil {
		if os.IsNotExist(err) {
			return nil
		}
		return err
	}
	return l.discard(gone)
}

// SweepShared removes what earlier processes that had the store shared left in
// the directory for temporaries.
func (l *Store) SweepShared() error {
	root, err := filetree.Open(l.temp)
	if err != nil {
		return err
	}
	defer root.Close()
	list, err := os.ReadDir(l.temp)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := root.RemoveAll(e.Name()); err != nil {
			return err
		}
	}
	return nil
}
