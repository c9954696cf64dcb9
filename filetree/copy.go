package filetree

import (
	"context"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// CopyTree copies what is below the directory srcName of src (followed) into
// the root of dst, with owners, permissions, times, portable attributes, hard
// links among the copied files and holes; the root of dst takes on the
// directory's own owner, permissions and times. Files in dst that are in the
// way are an error. Sockets are left out: without their process they are dead.
func CopyTree(ctx context.Context, dst, src *Root, srcName string) error {
	from, err := src.Sub(srcName)
	if err != nil {
		return err
	}
	defer from.Close()
	c := copier{dst: dst, links: map[inode]string{}}
	err = from.Walk("", func(e *Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.copy(e); err != nil {
			return &fs.PathError{Op: "copy", Path: "/" + e.Path, Err: err}
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Times last: making entries changed them.
	for i := len(c.dirs) - 1; i >= 0; i-- {
		d := &c.dirs[i]
		parent, base, err := dst.OpenParent(d.path)
		if err != nil {
			return err
		}
		err = unix.UtimesNanoAt(parent, base, []unix.Timespec{d.st.Atim, d.st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
		unix.Close(parent)
		if err != nil {
			return dst.fault("set times of", d.path, err)
		}
	}
	return nil
}

type inode struct{ dev, ino uint64 }

type copier struct {
	dst   *Root
	links map[inode]string
	dirs  []copiedDir
}

type copiedDir struct {
	path string
	st   unix.Stat_t
}

func (c *copier) copy(e *Entry) error {
	dir, base, err := c.dst.OpenParent(e.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	st := &e.Stat
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, ok := c.links[id]; ok {
			fdir, fbase, err := c.dst.OpenParent(first)
			if err != nil {
				return err
			}
			defer unix.Close(fdir)
			return unix.Linkat(fdir, fbase, dir, base, 0)
		}
		c.links[id] = e.Path
	}
	switch kind {
	case unix.S_IFDIR:
		if base != "." {
			err = unix.Mkdirat(dir, base, 0o700)
		}
		c.dirs = append(c.dirs, copiedDir{e.Path, *st})
	case unix.S_IFREG:
		err = copyFile(dir, base, e)
	case unix.S_IFLNK:
		var target string
		if target, err = e.Readlink(); err == nil {
			err = unix.Symlinkat(target, dir, base)
		}
	case unix.S_IFSOCK:
		return nil
	default:
		err = unix.Mknodat(dir, base, kind|0o600, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	if err := unix.Fchownat(dir, base, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if kind != unix.S_IFLNK {
		if err := ChmodAt(dir, base, st.Mode&0o7777); err != nil {
			return err
		}
	}
	attrs, err := Xattrs(e.Dir, e.Name)
	if err != nil {
		return err
	}
	for k, v := range attrs {
		if err := SetXattr(dir, base, k, v); err != nil && err != unix.ENOTSUP {
			return err
		}
	}
	return unix.UtimesNanoAt(dir, base, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// ChmodAt sets the permission bits of name in dir, which is never followed: a
// link is an error (ELOOP).
func ChmodAt(dir int, name string, mode uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return unix.Chmod(fdPath(fd), mode)
}

// copyFile copies the content; holes stay holes.
func copyFile(dir int, base string, e *Entry) error {
	in, err := e.OpenRegular()
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(in), e.Path)
	defer src.Close()
	out, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(out), e.Path)
	err = copyExtents(dst, src)
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	return err
}

func copyExtents(dst, src *os.File) error {
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil // shared blocks, where the filesystem has them
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.ESTALE // exchanged since it was seen
	}
	end := st.Size
	for pos := int64(0); pos < end; {
		data, err := unix.Seek(int(src.Fd()), pos, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // only a hole is left
		}
		if err != nil {
			data = pos
		}
		hole, err := unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			hole = end
		}
		if _, err := src.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := dst.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(dst, src, hole-data); err != nil && err != io.EOF {
			return err
		}
		pos = hole
	}
	return dst.Truncate(end)
}
