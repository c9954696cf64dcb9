package filetree

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MkdirAll makes the directory name and the parents that are missing, with
// exactly these permission bits (whatever the umask; a set-group-ID parent
// hands its bit on), and returns a descriptor (O_PATH) of it, which the caller
// closes. Links on the way are followed inside the tree; where one leads to
// nothing, its target is made. What exists is not changed.
func (r *Root) MkdirAll(name string, mode uint32) (int, error) {
	fd, err := r.mkdirAll(name, mode)
	if err != nil {
		return -1, r.fault("mkdir", name, err)
	}
	return fd, nil
}

func (r *Root) mkdirAll(name string, mode uint32) (int, error) {
	const path = unix.O_PATH | unix.O_DIRECTORY
	for links := 0; ; {
		fd, err := Openat2(r.fd, name, path, 0, inRoot)
		if err != unix.ENOENT {
			return fd, err
		}
		parts := strings.FieldsFunc(name, func(c rune) bool { return c == '/' })
		// The first of parts[:n] that is missing, by halving: a name can have
		// two thousand parts, and each try costs the kernel a walk.
		low, high := 0, len(parts)
		cur, err := Openat2(r.fd, "", path, 0, inRoot)
		if err != nil {
			return -1, err
		}
		for low+1 < high {
			mid := (low + high) / 2
			fd, err := Openat2(r.fd, strings.Join(parts[:mid], "/"), path, 0, inRoot)
			switch err {
			case nil:
				unix.Close(cur)
				cur, low = fd, mid
			case unix.ENOENT:
				high = mid
			default:
				unix.Close(cur)
				return -1, err
			}
		}
		fd, rest, err := makeParts(cur, parts[low:], mode)
		if err == nil || rest < 0 {
			return fd, err
		}
		// parts[low+rest] is a link that leads nowhere.
		if links++; links > 40 {
			return -1, unix.ELOOP
		}
		at := low + rest
		target := err.(dangling).target
		if !strings.HasPrefix(target, "/") {
			target = strings.Join(parts[:at], "/") + "/" + target
		}
		name = target + "/" + strings.Join(parts[at+1:], "/")
		if len(name) >= unix.PathMax {
			return -1, unix.ENAMETOOLONG
		}
	}
}

// dangling is a symbolic link whose target does not exist.
type dangling struct{ target string }

func (d dangling) Error() string { return "link to nothing: " + d.target }

// makeParts makes parts one below the other, beginning in dir, which it
// closes. Where it meets a link it stops with its index and target.
func makeParts(dir int, parts []string, mode uint32) (fd, at int, err error) {
	for i, part := range parts {
		next, err := mkdirOpen(dir, part, mode)
		if err == unix.ENOTDIR || err == unix.ELOOP {
			if target, lerr := readlinkat(dir, part); lerr == nil {
				unix.Close(dir)
				return -1, i, dangling{target}
			}
		}
		unix.Close(dir)
		if err != nil {
			return -1, -1, err
		}
		dir = next
	}
	return dir, -1, nil
}

// mkdirOpen makes one directory if it is missing and opens it, never a link.
func mkdirOpen(dir int, name string, mode uint32) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if name == "." || name == ".." {
		return -1, unix.EINVAL
	}
	made := true
	if err := unix.Mkdirat(dir, name, mode); err == unix.EEXIST {
		made = false
	} else if err != nil {
		return -1, err
	}
	fd, err := unix.Openat(dir, name, flags, 0)
	if err != nil || !made {
		return fd, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if st.Mode&0o1777 != mode&0o1777 {
		if err := unix.Chmod(fdPath(fd), mode&0o1777|st.Mode&unix.S_ISGID); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// WriteFile replaces name by a regular file with this content, permission and
// owner root, by a rename inside its directory. Readers see the old or the new
// file. It is not forced to disk.
func (r *Root) WriteFile(name string, data []byte, mode uint32) error {
	dir, base, err := r.OpenParent(name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	temp := ".cale-" + randomName()
	fd, err := unix.Openat(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return r.fault("create", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	if err == nil {
		err = unix.Fchmod(fd, mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = unix.Renameat(dir, temp, dir, base)
	}
	if err != nil {
		unix.Unlinkat(dir, temp, 0)
		return r.fault("write", name, err)
	}
	return nil
}
