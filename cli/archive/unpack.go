package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how to unpack.
type Options struct {
	// From is the name that the tar's entries begin with ("." for none) and
	// To the name that they get in its place.
	From, To string
	Owner    bool // keep owners (else everything is the user's)
}

// Unpack unpacks a tar in folder dir. Names are resolved in dir, links that
// lead out of it are not followed.
func Unpack(dir string, r io.Reader, o Options) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	type folder struct {
		name string
		h    *tar.Header
	}
	var folders []folder // their times and modes are set when they are full
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
		name, err := o.rename(h.Name)
		if err != nil {
			return err
		}
		if err := unpackOne(root, name, h, tr, o); err != nil {
			return fmt.Errorf("unpacking %s: %w", h.Name, err)
		}
		if h.Typeflag == tar.TypeDir {
			folders = append(folders, folder{name, h})
		}
	}
	for i := len(folders) - 1; i >= 0; i-- {
		f := folders[i]
		if f.name == "." && o.From == "." {
			continue // the user's own folder
		}
		if err := root.Chmod(f.name, o.mode(f.h)); err != nil {
			return err
		}
		if err := setTimes(root, f.name, f.h); err != nil {
			return err
		}
	}
	return nil
}

// rename gives an entry its name here. Entries outside From are refused.
func (o Options) rename(name string) (string, error) {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if clean == "" {
		clean = "."
	}
	if o.From == "." || o.From == "" {
		return path.Join(o.To, clean), nil
	}
	first, rest, _ := strings.Cut(clean, "/")
	if first != o.From {
		return "", fmt.Errorf("the archive holds %q, which is not part of %q", name, o.From)
	}
	return path.Join(o.To, rest), nil
}

// mode is what an entry's permissions become here. A set-user-ID program was its owner's there and is the user's
// here, unless owners are kept: it must not lend out the user's rights. A device node is this machine's device,
// whatever it was good for in the container: nobody but the user gets at it.
func (o Options) mode(h *tar.Header) fs.FileMode {
	m := h.FileInfo().Mode()
	switch {
	case isDevice(h):
		return m.Perm() & 0o600
	case o.Owner || h.Typeflag == tar.TypeDir:
		return m.Perm() | m&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)
	}
	return m.Perm() | m&fs.ModeSticky
}

func isDevice(h *tar.Header) bool { return h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock }

func unpackOne(root *os.Root, name string, h *tar.Header, r io.Reader, o Options) error {
	if parent := path.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	old, err := root.Lstat(name)
	exists := err == nil
	switch {
	case h.Typeflag == tar.TypeDir && exists && old.IsDir():
		return owner(root, name, h, o)
	case exists && old.IsDir():
		return errors.New("cannot overwrite directory with non-directory")
	case exists && h.Typeflag == tar.TypeDir:
		return errors.New("cannot overwrite non-directory with directory")
	case exists:
		if err := root.Remove(name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		// Writable until it is full.
		err = root.Mkdir(name, 0o700)
	case tar.TypeReg:
		err = writeFile(root, name, r)
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return owner(root, name, h, o)
	case tar.TypeLink:
		target, err := o.rename(h.Linkname)
		if err != nil {
			return err
		}
		return root.Link(target, name)
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		err = node(root, name, h)
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("unknown type %q", h.Typeflag)
	}
	if err != nil {
		return err
	}
	if err := owner(root, name, h, o); err != nil || h.Typeflag == tar.TypeDir {
		return err
	}
	if err := root.Chmod(name, o.mode(h)); err != nil {
		return err
	}
	return setTimes(root, name, h)
}

func writeFile(root *os.Root, name string, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// node makes a device or pipe, by its folder's descriptor.
func node(root *os.Root, name string, h *tar.Header) error {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	kind := map[byte]uint32{tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}[h.Typeflag]
	return unix.Mknodat(int(dir.Fd()), path.Base(name), kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

func owner(root *os.Root, name string, h *tar.Header, o Options) error {
	if !o.Owner || isDevice(h) {
		return nil
	}
	return root.Lchown(name, h.Uid, h.Gid)
}

func setTimes(root *os.Root, name string, h *tar.Header) error {
	at := h.AccessTime
	if at.IsZero() {
		at = time.Now()
	}
	return root.Chtimes(name, at, h.ModTime)
}
