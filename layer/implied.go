package layer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/image"
)

// A layer that holds tmp/x and not tmp has a tmp all the same, once unpacked,
// and overlayfs shows the attributes of the topmost one: without more, /tmp
// would cease to be writable for all. Which attributes it should show depends
// on the layers below, which are known when an image is put together: then the
// implied directories take on those of the directories they lie over. If two
// images put one layer over different ones, the later of them decides; such
// layers practically do not exist.

// fit gives the implied directories of the layers the attributes they have in
// this image. It costs nothing for layers that hold all their directories.
func (l *Store) fit(diffIDs []image.Digest) error {
	for i, d := range diffIDs {
		in, err := l.info(d)
		if err != nil {
			return err
		}
		if !in.implied || i == 0 {
			continue
		}
		below := diffIDs[:i]
		key := chain(below)
		l.mu.Lock()
		done := l.fitted[d] == key
		l.mu.Unlock()
		if done {
			continue
		}
		if err := l.fitOne(d, below); err != nil {
			return fmt.Errorf("layer %s: fit its directories: %w", d, err)
		}
		l.mu.Lock()
		l.fitted[d] = key
		l.mu.Unlock()
	}
	return nil
}

// chain names a sequence of layers.
func chain(ids []image.Digest) string {
	var b strings.Builder
	for _, d := range ids {
		b.WriteString(d.String())
	}
	return image.FromBytes([]byte(b.String())).String()
}

func (l *Store) fitOne(d image.Digest, below []image.Digest) error {
	list, err := os.ReadFile(filepath.Join(l.path(d), "implied"))
	if err != nil {
		return err
	}
	own, err := filetree.Open(filepath.Join(l.path(d), "fs"))
	if err != nil {
		return err
	}
	defer own.Close()
	var lower []*filetree.Root // the top one first
	defer func() {
		for _, r := range lower {
			r.Close()
		}
	}()
	for i := len(below) - 1; i >= 0; i-- {
		if err := l.Show(below[i]); err != nil {
			return err
		}
		r, err := filetree.Open(filepath.Join(l.path(below[i]), "fs"))
		if err != nil {
			return err
		}
		lower = append(lower, r)
	}
	for name := range bytes.SplitSeq(list, []byte{0}) {
		if err := fitDir(own, lower, string(name)); err != nil {
			return fmt.Errorf("%s: %w", quote(string(name)), err)
		}
	}
	return nil
}

// fitDir gives one directory the attributes of the one it lies over, if any.
func fitDir(own *filetree.Root, lower []*filetree.Root, name string) error {
	to, end, err := lookup(own, name)
	if to < 0 {
		return err // it was replaced later in the archive, or lies behind a link
	}
	defer unix.Close(to)
	if end {
		return nil
	}
	for _, r := range lower {
		from, end, err := lookup(r, name)
		if from >= 0 {
			err = copyAttributes(to, from)
			unix.Close(from)
			return err
		}
		if err != nil || end {
			return err
		}
	}
	return nil
}

// lookup opens a directory of one layer, not through links; fd is -1 if there
// is none. end says that nothing below this layer shows through at that name.
func lookup(r *filetree.Root, name string) (fd int, end bool, err error) {
	fd, err = filetree.Openat2(r.FD(), "", unix.O_PATH|unix.O_DIRECTORY, 0, 0)
	if err != nil {
		return -1, true, err
	}
	for part := range strings.SplitSeq(name, "/") {
		next, err := unix.Openat(fd, part, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		switch err {
		case nil:
		case unix.ENOENT:
			return -1, end, nil
		case unix.ENOTDIR, unix.ELOOP:
			return -1, true, nil // a whiteout, or something that is no directory
		default:
			return -1, true, err
		}
		fd = next
		var v [2]byte
		if n, err := unix.Fgetxattr(fd, "trusted.overlay.opaque", v[:]); err == nil && n == 1 && v[0] == 'y' {
			end = true
		}
	}
	return fd, end, nil
}

func copyAttributes(to, from int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	attrs, err := filetree.Xattrs(from, ".")
	if err != nil {
		return err
	}
	for k, v := range attrs {
		if err := unix.Fsetxattr(to, k, v, 0); err != nil && err != unix.ENOTSUP {
			return err
		}
	}
	return filetree.Futimens(to, [2]unix.Timespec{st.Atim, st.Mtim})
}
