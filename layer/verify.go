package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/image"
)

// ErrDamaged says that an unpacked layer is not what its blob holds.
var ErrDamaged = errors.New("layer is damaged")

// Verify compares an unpacked layer with what r, its blob as distributed,
// unpacks to: it unpacks it once more, out of sight.
func (l *Store) Verify(ctx context.Context, r io.Reader, diffID image.Digest) (err error) {
	if i, err := l.note(diffID); err == nil && i.image {
		return l.VerifyImage(ctx, diffID)
	}
	temp := filepath.Join(l.dir, l.tag+"verify-"+strconv.FormatUint(l.seq.Add(1), 10))
	other, err := Open(temp)
	if err != nil {
		return fmt.Errorf("verify layer %s: %w", diffID, err)
	}
	defer func() {
		if e := l.discard(temp); err == nil {
			err = e
		}
	}()
	other.Limits = l.Limits
	want, err := other.unpack(ctx, r, diffID)
	if err != nil {
		return fmt.Errorf("verify layer %s: %w", diffID, err)
	}
	have, err := l.note(diffID)
	if err != nil || have.opaque != want.opaque || have.implied != want.implied {
		return fmt.Errorf("%w: what was noted of it has changed", ErrDamaged)
	}
	implied := map[string]bool{}
	if want.implied {
		raw, err := os.ReadFile(filepath.Join(other.path(diffID), "implied"))
		if err != nil {
			return fmt.Errorf("verify layer %s: %w", diffID, err)
		}
		for _, name := range strings.Split(string(raw), "\x00") {
			implied[name] = true
		}
	}
	return compare(ctx, filepath.Join(other.path(diffID), "fs"), filepath.Join(l.path(diffID), "fs"), implied)
}

// There tells whether a layer's directory exists, whatever state it is in.
func (l *Store) There(diffID image.Digest) bool {
	if diffID.IsZero() {
		return false
	}
	_, err := os.Lstat(l.path(diffID))
	return err == nil
}

// compare tells the first difference between two trees. Of the directories
// that a layer only implied the attributes don't count: they are those of the
// layers below.
func compare(ctx context.Context, wantPath, havePath string, implied map[string]bool) error {
	want, err := filetree.Open(wantPath)
	if err != nil {
		return err
	}
	defer want.Close()
	have, err := filetree.Open(havePath)
	if filetree.NotExist(err) {
		return fmt.Errorf("%w: its files are gone", ErrDamaged)
	}
	if err != nil {
		return err
	}
	defer have.Close()
	seen := map[string]bool{}
	err = want.Walk("", func(e *filetree.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		seen[e.Path] = true
		diff, err := differs(e, have, implied[e.Path])
		if err != nil {
			return fmt.Errorf("compare /%s: %w", e.Path, err)
		}
		if diff != "" {
			return fmt.Errorf("%w: /%s: %s", ErrDamaged, e.Path, diff)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return have.Walk("", func(e *filetree.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !seen[e.Path] {
			return fmt.Errorf("%w: /%s is too much", ErrDamaged, e.Path)
		}
		return nil
	})
}

// differs compares one file with that of the same name in the other tree, and
// says what is different.
func differs(e *filetree.Entry, in *filetree.Root, implied bool) (string, error) {
	dir, base := in.FD(), "."
	if e.Path != "" {
		var err error
		if dir, err = openDir(in, strings.TrimSuffix(e.Path, e.Name)); filetree.NotExist(err) || err == unix.ELOOP {
			return "missing", nil
		} else if err != nil {
			return "", err
		}
		defer unix.Close(dir)
		base = e.Name
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == unix.ENOENT {
		return "missing", nil
	} else if err != nil {
		return "", err
	}
	kind := e.Stat.Mode & unix.S_IFMT
	if st.Mode&unix.S_IFMT != kind {
		return "another kind of file", nil
	}
	theirs := &filetree.Entry{Path: e.Path, Dir: dir, Name: base, Stat: st}
	if kind == unix.S_IFDIR && opaque(e) != opaque(theirs) {
		return "hides what is below, or not any more", nil
	}
	if implied {
		return "", nil
	}
	switch {
	case kind != unix.S_IFLNK && st.Mode != e.Stat.Mode:
		return "other permissions", nil
	case st.Uid != e.Stat.Uid || st.Gid != e.Stat.Gid:
		return "another owner", nil
	case kind != unix.S_IFDIR && st.Nlink != e.Stat.Nlink && !isWhiteout(&st):
		return "another number of names", nil
	}
	if diff, err := attributesDiffer(e, theirs); diff != "" || err != nil {
		return diff, err
	}
	switch kind {
	case unix.S_IFREG:
		if st.Size != e.Stat.Size {
			return fmt.Sprintf("%d bytes instead of %d", st.Size, e.Stat.Size), nil
		}
		return contentDiffers(e, theirs)
	case unix.S_IFLNK:
		a, err := e.Readlink()
		if err != nil {
			return "", err
		}
		b, err := theirs.Readlink()
		if err == nil && a != b {
			return "leads elsewhere", nil
		}
		return "", err
	case unix.S_IFCHR, unix.S_IFBLK:
		if st.Rdev != e.Stat.Rdev {
			return "another device", nil
		}
	}
	return "", nil
}

// openDir opens a directory that is reached through no links and may be deeper
// than a path can tell.
func openDir(in *filetree.Root, name string) (int, error) {
	fd, err := filetree.Openat2(in.FD(), "", unix.O_PATH|unix.O_DIRECTORY, 0, 0)
	for name = strings.Trim(name, "/"); name != "" && err == nil; {
		part := name
		if len(part) >= unix.PathMax {
			part = part[:strings.LastIndexByte(part[:unix.PathMax], '/')]
		}
		name = strings.TrimPrefix(name[len(part):], "/")
		up := fd
		fd, err = filetree.Openat2(up, part, unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
		unix.Close(up)
	}
	return fd, err
}

// opaque tells a directory that hides what is below.
func opaque(e *filetree.Entry) bool {
	v, err := filetree.Xattr(e.Dir, e.Name, "trusted.overlay.opaque")
	return err == nil && string(v) == "y"
}

// attributesDiffer compares the portable extended attributes.
func attributesDiffer(a, b *filetree.Entry) (string, error) {
	x, err := filetree.Xattrs(a.Dir, a.Name)
	if err != nil {
		return "", err
	}
	y, err := filetree.Xattrs(b.Dir, b.Name)
	if err != nil {
		return "", err
	}
	if !maps.EqualFunc(x, y, bytes.Equal) {
		return "other extended attributes", nil
	}
	return "", nil
}

func contentDiffers(a, b *filetree.Entry) (string, error) {
	if a.Stat.Size == 0 {
		return "", nil
	}
	var files [2]*os.File
	for i, e := range []*filetree.Entry{a, b} {
		fd, err := e.Open(unix.O_RDONLY | unix.O_NONBLOCK)
		if err != nil {
			return "", err
		}
		files[i] = os.NewFile(uintptr(fd), e.Path)
		defer files[i].Close()
	}
	x, y := buffers.Get().(*[bufferSize]byte), buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(x)
	defer buffers.Put(y)
	for {
		n, err := io.ReadFull(files[0], x[:])
		m, err2 := io.ReadFull(files[1], y[:])
		if !bytes.Equal(x[:n], y[:m]) {
			return "other content", nil
		}
		if err2 != nil && err2 != io.EOF && err2 != io.ErrUnexpectedEOF {
			return err2.Error(), nil // the disk's answer to a read of a bad block, most likely
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return "", nil
		default:
			return "", err
		}
	}
}
