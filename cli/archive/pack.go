// Package archive packs files of this machine as tar for a container, and
// unpacks what comes from one. What comes is not trusted: nothing is written
// outside the folder that was asked for, whatever names and links it holds.
package archive

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Pack writes source (a file or a tree) as tar with name in place of its own
// name ("." for a folder's contents alone). Links are kept as links.
func Pack(w io.Writer, source, name string) error {
	tw := tar.NewWriter(w)
	seen := map[[2]uint64]string{} // device and inode to the name first written
	err := filepath.WalkDir(source, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return packOne(tw, p, path.Join(name, filepath.ToSlash(rel)), info, seen)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func packOne(tw *tar.Writer, p, name string, info fs.FileInfo, seen map[[2]uint64]string) error {
	if info.Mode()&fs.ModeSocket != 0 {
		return nil // a tar cannot hold one
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Format = name, tar.FormatPAX
	h.Uname, h.Gname = "", "" // names of this machine mean nothing there
	if info.IsDir() {
		h.Name = strings.TrimSuffix(name, "/") + "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() && st.Nlink > 1 {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := seen[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return tw.WriteHeader(h)
		}
		seen[key] = name
	}
	if !info.Mode().IsRegular() {
		return tw.WriteHeader(h)
	}
	f, err := os.OpenFile(p, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	// A file that grows meanwhile is cut at its first size; one that shrinks
	// is an error.
	n, err := io.Copy(tw, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s became shorter while it was read", p)
	}
	return err
}
