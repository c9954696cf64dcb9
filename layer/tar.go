package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cale/filetree"
)

// TarOptions say what of a tree goes into an archive and under which names.
type TarOptions struct {
	// Start is the file or directory in the tree that is archived; its last
	// component is not followed. "" is the whole tree.
	Start string
	// Name is what Start is called in the archive. "" leaves the root entry
	// out and gives the names below it as they are; "." and "/" begin them.
	Name string
	// Layer takes the tree for an overlayfs upper directory or an unpacked
	// layer and writes whiteouts as OCI layers hold them.
	Layer bool
	// Contents leaves Start itself out, if it is a directory.
	Contents bool
	// Owners, when not nil, says who is to own in the archive what an owner has in the tree.
	Owners func(uid, gid uint32) (archiveUID, archiveGID uint32)
}

// Diff writes what an overlayfs upper directory changed as an OCI layer.
func Diff(ctx context.Context, w io.Writer, upper *filetree.Root) error {
	return Tar(ctx, w, upper, TarOptions{Layer: true})
}

// Tar writes a tree as a plain tar stream: owners, permissions, times to the
// nanosecond, portable extended attributes, devices and hard links as they
// are; sockets are left out. The tree may change meanwhile: each file appears
// in one state of its size.
func Tar(ctx context.Context, w io.Writer, root *filetree.Root, o TarOptions) error {
	bw := bufio.NewWriterSize(w, 128<<10)
	a := &archiver{
		opts: o, tw: tar.NewWriter(bw), buf: buffers.Get().(*[bufferSize]byte),
		links: map[fileID]string{},
	}
	defer buffers.Put(a.buf)
	err := root.Walk(o.Start, func(e *filetree.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.entry(ctx, e); err != nil && err != fs.SkipDir {
			return fmt.Errorf("archive /%s: %w", strings.TrimLeft(path.Join(o.Start, e.Path), "/"), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := a.tw.Close(); err != nil {
		return err
	}
	return bw.Flush()
}

type fileID struct{ dev, ino uint64 }

type archiver struct {
	opts  TarOptions
	tw    *tar.Writer
	buf   *[bufferSize]byte
	links map[fileID]string // files of several names, by the name written first
}

func (a *archiver) name(e *filetree.Entry) string {
	if e.Path == "" {
		return a.opts.Name
	}
	if a.opts.Name == "/" {
		return "/" + e.Path
	}
	if a.opts.Name == "" {
		return e.Path
	}
	return a.opts.Name + "/" + e.Path
}

func (a *archiver) entry(ctx context.Context, e *filetree.Entry) error {
	name := a.name(e)
	if name == "" || e.Path == "" && a.opts.Contents && e.IsDir() {
		return nil
	}
	st := &e.Stat
	kind := st.Mode & unix.S_IFMT
	if a.opts.Layer && isWhiteout(st) {
		return a.tw.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: path.Join(path.Dir(name), ".wh."+path.Base(name)), Mode: 0o600, ModTime: time.Unix(0, 0),
		})
	}
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	if a.opts.Owners != nil {
		uid, gid := a.opts.Owners(st.Uid, st.Gid)
		h.Uid, h.Gid = int(uid), int(gid)
	}
	switch kind {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(name, "/")+"/"
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFLNK:
		target, err := e.Readlink()
		if err != nil {
			return vanished(err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return nil // a socket: nothing without the process behind it
	}
	id, linked := fileID{uint64(st.Dev), st.Ino}, kind != unix.S_IFDIR && st.Nlink > 1
	if first, ok := a.links[id]; linked && ok {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		return a.tw.WriteHeader(h)
	}
	attrs, err := filetree.Xattrs(e.Dir, e.Name)
	if err != nil {
		return vanished(err)
	}
	for k, v := range attrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrPrefix+k] = string(v)
	}
	if kind == unix.S_IFREG {
		ok, err := a.file(ctx, e, h)
		if ok && linked {
			a.links[id] = name
		}
		return err
	}
	if err := a.tw.WriteHeader(h); err != nil {
		return err
	}
	if linked {
		a.links[id] = name
	}
	if kind == unix.S_IFDIR && a.opts.Layer {
		return a.opaque(e, name)
	}
	return nil
}

// vanished makes nothing of the failure to read what is gone meanwhile.
func vanished(err error) error {
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// opaque writes the marker of a directory that hides what lies below it.
func (a *archiver) opaque(e *filetree.Entry, name string) error {
	v, err := filetree.Xattr(e.Dir, e.Name, "trusted.overlay.opaque")
	if err != nil || string(v) != "y" {
		if err == unix.ENODATA || err == unix.ENOTSUP {
			err = nil
		}
		return err
	}
	return a.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name + "/.wh..wh..opq", Mode: 0o600, ModTime: time.Unix(0, 0)})
}

// file writes a regular file, and tells whether it was still there. Its size is
// settled by the header, so one that shrinks meanwhile is filled up with zeros.
func (a *archiver) file(ctx context.Context, e *filetree.Entry, h *tar.Header) (bool, error) {
	fd, err := e.OpenRegular()
	if err != nil {
		return false, vanished(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Ino != e.Stat.Ino || st.Dev != e.Stat.Dev {
		return false, errors.New("exchanged while it was being read")
	}
	h.Size = st.Size
	if err := a.tw.WriteHeader(h); err != nil {
		return false, err
	}
	for left := st.Size; left > 0; {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		b := a.buf[:min(left, bufferSize)]
		n, err := unix.Read(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false, err
		}
		if n == 0 {
			clear(b)
			n = len(b)
		}
		if _, err := a.tw.Write(b[:n]); err != nil {
			return false, err
		}
		left -= int64(n)
	}
	return true, nil
}
