package filetree

import (
	"crypto/rand"
	"encoding/hex"

	"golang.org/x/sys/unix"
)

func randomName() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// RemoveAll removes name and what is below it; the last component is not
// followed. That nothing is there is no error. It stays on the filesystem of
// the tree: something mounted below is an error, and left alone.
func (r *Root) RemoveAll(name string) error {
	dir, base, err := r.OpenParent(name)
	if err != nil {
		if NotExist(err) {
			return nil
		}
		return err
	}
	defer unix.Close(dir)
	if base == "." {
		return r.fault("remove", name, unix.EINVAL)
	}
	if err := RemoveAt(dir, base); err != nil {
		return r.fault("remove", name, err)
	}
	return nil
}

// Empty removes everything in the tree but its root.
func (r *Root) Empty() error {
	if err := emptyDir(r.fd, ".", -1, 0); err != nil {
		return r.fault("remove", "", err)
	}
	return nil
}

// maxOpen bounds how many directories RemoveAt holds open: what lies deeper is
// first moved up.
const maxOpen = 100

// RemoveAt is RemoveAll for one component below a directory's descriptor.
func RemoveAt(dir int, name string) error { return removeAt(dir, name, -1, 0) }

// removeAt removes name from dir. top is the highest directory that is being
// emptied: subtrees that lie too deep are moved into it.
func removeAt(dir int, name string, top, depth int) error {
	switch err := unix.Unlinkat(dir, name, 0); err {
	case nil, unix.ENOENT:
		return nil
	case unix.EISDIR, unix.EPERM, unix.EBUSY:
	default:
		return err
	}
	switch err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err {
	case nil, unix.ENOENT:
		return nil
	case unix.ENOTEMPTY, unix.EEXIST:
	default:
		return err
	}
	if err := emptyDir(dir, name, top, depth); err != nil {
		return err
	}
	err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// emptyDir removes the entries of one directory. It reads the names anew until
// none are left: a directory may skip names while others are being removed.
func emptyDir(dir int, name string, top, depth int) error {
	fd, err := Openat2(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if depth == 0 {
		top = fd
	}
	buf := make([]byte, 8192)
	for {
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			return err
		}
		removed := 0
		for {
			n, err := unix.ReadDirent(fd, buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			if n <= 0 {
				break
			}
			var names []string
			_, _, names = unix.ParseDirent(buf[:n], -1, names)
			for _, entry := range names {
				if err := removeEntry(fd, entry, top, depth); err != nil {
					return err
				}
				removed++
			}
		}
		if removed == 0 {
			return nil
		}
	}
}

func removeEntry(fd int, entry string, top, depth int) error {
	if depth+1 < maxOpen {
		return removeAt(fd, entry, top, depth+1)
	}
	// Too deep to hold every directory above open: move it to the top, which is
	// read until nothing is left.
	up := ".cale-" + randomName()
	if err := unix.Renameat2(fd, entry, top, up, unix.RENAME_NOREPLACE); err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return err
	}
	return nil
}
