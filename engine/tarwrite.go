package engine

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cale/filetree"
)

// writeTar writes name and all below it; top is what name is called in the archive ("" and "." for its content).
func writeTar(ctx context.Context, root *filetree.Root, name, top string, w io.Writer) error {
	t := tarWriter{tw: tar.NewWriter(w), links: map[[2]uint64]string{}}
	err := root.Walk(name, func(e *filetree.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		as := path.Join(top, e.Path)
		if as == "." || as == "" {
			as = "./"
		}
		if err := t.entry(e, as); err != nil {
			return fmt.Errorf("archive %s: %w", as, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.tw.Close()
}

type tarWriter struct {
	tw    *tar.Writer
	links map[[2]uint64]string
}

func (t *tarWriter) entry(e *filetree.Entry, as string) error {
	st := &e.Stat
	h := &tar.Header{Name: as, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX}
	kind := st.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name = strings.TrimSuffix(h.Name, "/") + "/"
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFLNK:
		target, err := e.Readlink()
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	default:
		return nil // a socket is nothing without its process
	}
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := t.links[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return t.tw.WriteHeader(h)
		}
		t.links[key] = as
	}
	attrs, err := filetree.Xattrs(e.Dir, e.Name)
	if err != nil {
		return err
	}
	for k, v := range attrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = string(v)
	}
	if kind != unix.S_IFREG {
		return t.tw.WriteHeader(h)
	}
	fd, err := e.Open(unix.O_RDONLY | unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), as)
	defer f.Close()
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	// The file may shrink or grow while it is read: the header's size holds.
	n, err := io.CopyN(t.tw, f, h.Size)
	if err == io.EOF {
		_, err = io.CopyN(t.tw, zeros{}, h.Size-n)
	}
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
