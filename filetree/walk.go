package filetree

import (
	"errors"
	"io/fs"
	"sort"

	"golang.org/x/sys/unix"
)

// maxDepth bounds how deep Walk goes: it holds one descriptor for each level.
const maxDepth = 1 << 11

// ErrTooDeep says that a tree is deeper than Walk goes.
var ErrTooDeep = errors.New("directory tree too deep")

// Entry is one file that Walk found.
type Entry struct {
	Path string // from the start of the walk, "" for the start itself
	Dir  int    // descriptor (O_PATH or readable) of the directory that holds it; the Walk's
	Name string // the component in Dir, "." for the start of a walk that is the root
	Stat unix.Stat_t
}

// IsDir tells a directory.
func (e *Entry) IsDir() bool { return e.Stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// Open opens the entry itself, never what a link leads to.
func (e *Entry) Open(flags int) (int, error) {
	return unix.Openat(e.Dir, e.Name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// OpenRegular opens an entry that was seen to be a regular file, for reading.
// What has taken its place since is not opened (ESTALE): it may be a device.
func (e *Entry) OpenRegular() (int, error) {
	at, err := e.Open(unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, unix.ESTALE
	}
	return reopen(at)
}

// Readlink is the target of an entry that is a symbolic link.
func (e *Entry) Readlink() (string, error) { return readlinkat(e.Dir, e.Name) }

// Walk calls fn for name (not followed) and all below it, parents first, names
// sorted. fn returns fs.SkipDir to leave a directory out. Files that vanish
// meanwhile are left out.
func (r *Root) Walk(name string, fn func(e *Entry) error) error {
	dir, base, err := r.OpenParent(name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = walk(dir, base, "", 0, fn)
	if err == fs.SkipDir {
		return nil
	}
	return err
}

func walk(dir int, name, path string, depth int, fn func(*Entry) error) error {
	e := Entry{Path: path, Dir: dir, Name: name}
	if err := unix.Fstatat(dir, name, &e.Stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT && depth > 0 {
			return nil
		}
		return &fs.PathError{Op: "stat", Path: "/" + path, Err: err}
	}
	if err := fn(&e); err != nil || !e.IsDir() {
		return err
	}
	if depth == maxDepth {
		return &fs.PathError{Op: "walk", Path: "/" + path[:200] + "…", Err: ErrTooDeep}
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if err == unix.EPERM { // O_NOATIME is for owners only
		fd, err = unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		if NotExist(err) && depth > 0 {
			return nil
		}
		return &fs.PathError{Op: "open", Path: "/" + path, Err: err}
	}
	defer unix.Close(fd)
	names, err := readNames(fd)
	if err != nil {
		return &fs.PathError{Op: "read", Path: "/" + path, Err: err}
	}
	for _, n := range names {
		below := n
		if path != "" {
			below = path + "/" + n
		}
		if err := walk(fd, n, below, depth+1, fn); err != nil && err != fs.SkipDir {
			return err
		}
	}
	return nil
}

// readNames lists a directory, sorted, without the dots.
func readNames(fd int) ([]string, error) {
	buf := make([]byte, 16384)
	var names []string
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	sort.Strings(names)
	return names, nil
}
