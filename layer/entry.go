package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cale/filetree"
)

const bufferSize = 256 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// file makes a regular file. Everything is done through its own descriptor.
func (x *extractor) file(ctx context.Context, dir int, base string, h *tar.Header) error {
	if h.Size < 0 || h.Size > x.opts.Limits.Bytes-x.sum.Bytes { // the sum could overflow
		return fmt.Errorf("%w of %d bytes", ErrTooLarge, x.opts.Limits.Bytes)
	}
	x.sum.Bytes += h.Size
	mode := uint32(h.Mode) & 0o7777
	fd := -1
	err := x.replace(dir, base, func() (err error) {
		fd, err = unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode&0o777)
		return err
	})
	if err != nil {
		return err
	}
	if err = x.content(ctx, fd, h); err == nil {
		err = x.fileAttributes(fd, mode, h)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

// fileAttributes sets owner, mode, extended attributes and times, in the order
// in which none undoes another: a chown clears set-user-ID and capabilities.
func (x *extractor) fileAttributes(fd int, mode uint32, h *tar.Header) error {
	uid, gid, err := x.owner(h)
	if err != nil {
		return err
	}
	chown := x.mustChown(uid, gid)
	if chown {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if mode&^0o777 != 0 || mode&x.umask != 0 {
		if err := unix.Fchmod(fd, mode); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if err := setXattrs(h.PAXRecords, func(k string, v []byte) error { return unix.Fsetxattr(fd, k, v, 0) }); err != nil {
		return err
	}
	return filetree.Futimens(fd, times(h))
}

// content copies the entry's bytes.
func (x *extractor) content(ctx context.Context, fd int, h *tar.Header) error {
	sparse := h.Typeflag == tar.TypeGNUSparse || h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != ""
	for left := h.Size; left > 0; {
		n := int64(bufferSize)
		if sparse {
			n = 32 << 10 // so that short runs of zeros are seen
		}
		n = min(n, left)
		b := x.buf[:n]
		if _, err := io.ReadFull(x.tr, b); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		left -= n
		if sparse && len(bytes.TrimLeft(b, "\x00")) == 0 {
			if _, err := unix.Seek(fd, n, unix.SEEK_CUR); err != nil {
				return err
			}
		} else if err := writeAll(fd, b); err != nil {
			return err
		}
		if left > 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if sparse {
		return unix.Ftruncate(fd, h.Size)
	}
	return nil
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// directory makes a directory, or takes the one that is there.
func (x *extractor) directory(dir int, base, name string, h *tar.Header) error {
	err := unix.Mkdirat(dir, base, 0o700)
	if err == nil {
		return x.later(name, h)
	}
	if err != unix.EEXIST {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return x.later(name, h)
	case unix.S_IFLNK:
		// In a living tree a link to a directory stands for it (/var/run).
		if !x.opts.Layer {
			if st, err := x.root.Stat(name); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				return nil
			}
		}
	}
	if x.opts.KeepKinds {
		return fmt.Errorf("cannot overwrite non-directory %s with a directory", quote(name))
	}
	if err := x.remove(dir, base); err != nil {
		return err
	}
	if err := unix.Mkdirat(dir, base, 0o700); err != nil {
		return err
	}
	if x.opts.Layer && isWhiteout(&st) {
		if err := setOpaque(dir, base); err != nil {
			return err
		}
	}
	return x.later(name, h)
}

// hardlink links base to another file of the same archive.
func (x *extractor) hardlink(dir int, base, target string) error {
	name, err := x.name(target)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(target), err)
	}
	parent, tbase := "", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		parent, tbase = name[:i], name[i+1:]
	}
	if tbase == "" {
		return errors.New("hard link to the root")
	}
	// Opened aside from the cache, which could close dir for it.
	from, err := filetree.Openat2(x.root.FD(), parent, unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	var st unix.Stat_t
	if err == nil {
		defer unix.Close(from)
		err = unix.Fstatat(from, tbase, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if filetree.NotExist(err) || err == nil && x.opts.Layer && isWhiteout(&st) {
		return fmt.Errorf("hard link to %s, which the archive has not brought", quote(target))
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("hard link to the directory %s", quote(target))
	}
	var old unix.Stat_t
	if unix.Fstatat(dir, base, &old, unix.AT_SYMLINK_NOFOLLOW) == nil && old.Ino == st.Ino && old.Dev == st.Dev {
		return nil // replacing it would remove the file itself
	}
	return x.replace(dir, base, func() error { return unix.Linkat(from, tbase, dir, base, 0) })
}

// node makes a device or fifo.
func (x *extractor) node(dir int, base string, kind uint32, h *tar.Header) error {
	dev := 0
	if kind != unix.S_IFIFO {
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return fmt.Errorf("device %d:%d does not exist", h.Devmajor, h.Devminor)
		}
		dev = int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	}
	return x.replace(dir, base, func() error { return unix.Mknodat(dir, base, kind|0o600, dev) })
}

// attributes are those of links, devices and fifos.
func (x *extractor) attributes(dir int, base string, h *tar.Header) error {
	uid, gid, err := x.owner(h)
	if err != nil {
		return err
	}
	if x.mustChown(uid, gid) {
		if err := unix.Fchownat(dir, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := filetree.ChmodAt(dir, base, uint32(h.Mode)&0o7777); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if err := setXattrs(h.PAXRecords, func(k string, v []byte) error { return filetree.SetXattr(dir, base, k, v) }); err != nil {
		return err
	}
	t := times(h)
	return unix.UtimesNanoAt(dir, base, t[:], unix.AT_SYMLINK_NOFOLLOW)
}

// replace calls make, and again after removing what was in the way.
func (x *extractor) replace(dir int, base string, make func() error) error {
	err := make()
	if err != unix.EEXIST {
		return err
	}
	if err := x.remove(dir, base); err != nil {
		return err
	}
	return make()
}

func (x *extractor) remove(dir int, base string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if x.opts.KeepKinds {
			return fmt.Errorf("cannot overwrite directory %s with a non-directory", quote(base))
		}
		// Names cached so far may lead through it; dir itself is in use.
		x.dirs.flushBut(dir)
		return filetree.RemoveAt(dir, base)
	case unix.S_IFLNK:
		x.dirs.flushBut(dir)
	}
	return unix.Unlinkat(dir, base, 0)
}

// owner is who owns an entry; numbers that wrap around or mean "no change" to
// the kernel are refused.
func (x *extractor) owner(h *tar.Header) (uid, gid int, err error) {
	uid, gid = h.Uid, h.Gid
	if o := x.opts.Owner; o != nil {
		uid, gid = int(o.UID), int(o.GID)
	}
	const most = 1<<32 - 2
	if uid < 0 || uid > most || gid < 0 || gid > most {
		return 0, 0, fmt.Errorf("owner %d:%d is out of range", uid, gid)
	}
	if x.opts.Owners != nil {
		u, g, err := x.opts.Owners(uint32(uid), uint32(gid))
		return int(u), int(g), err
	}
	return uid, gid, nil
}

// mustChown is false for what a new file is anyway: in a layer being made no
// directory has its set-group-ID bit yet.
func (x *extractor) mustChown(uid, gid int) bool {
	return !x.opts.Layer || !x.isRoot || uid != 0 || gid != 0
}

const xattrPrefix = "SCHILY.xattr."

// setXattrs calls set for the extended attributes that may be taken from an
// archive. user attributes are dropped where the filesystem has none.
func setXattrs(records map[string]string, set func(key string, value []byte) error) error {
	for k, v := range records {
		key, ok := strings.CutPrefix(k, xattrPrefix)
		if !ok || !filetree.PortableXattr(key) {
			continue
		}
		err := set(key, []byte(v))
		if err != nil && strings.HasPrefix(key, "user.") && (err == unix.ENOTSUP || err == unix.EPERM) {
			continue // EPERM: such attributes exist on files and directories only
		}
		if err != nil {
			return fmt.Errorf("set attribute %s: %w", quote(key), err)
		}
	}
	return nil
}

// umask is the process's file mode creation mask, read without changing it.
func umask() uint32 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777 // unknown: set every mode explicitly
	}
	_, rest, _ := strings.Cut(string(b), "\nUmask:")
	line, _, _ := strings.Cut(rest, "\n")
	v, err := strconv.ParseUint(strings.TrimSpace(line), 8, 32)
	if err != nil {
		return 0o777
	}
	return uint32(v)
}
