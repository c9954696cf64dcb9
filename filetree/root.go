// Package filetree works on directory trees that somebody else may have
// filled, or is changing at this moment: layers, container filesystems,
// volumes. A tree is held by a descriptor of its root and everything in it is
// named relative to that: links are resolved inside the tree (an absolute link
// means relative to the root, ".." of the root is the root), links of procfs
// that lead elsewhere are refused, and no name is ever put together with a
// path of the host.
package filetree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is a tree. It owns its descriptor.
type Root struct {
	fd   int
	name string // for messages only
}

// Open opens the directory at a host path that is trusted up to and including
// its last component, which must not be a symbolic link.
func Open(path string) (*Root, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &Root{fd: fd, name: path}, nil
}

// FromFD makes a tree of a directory's descriptor, which it then owns. name is
// used in messages.
func FromFD(fd int, name string) *Root { return &Root{fd: fd, name: name} }

// FD is the descriptor; it stays the Root's.
func (r *Root) FD() int { return r.fd }

// Name is what the tree is called in messages.
func (r *Root) Name() string { return r.name }

// Close closes the descriptor.
func (r *Root) Close() error {
	if r.fd < 0 {
		return nil
	}
	err := unix.Close(r.fd)
	r.fd = -1
	return err
}

// inRoot is how every name is resolved.
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// Openat2 opens name below dirfd. A rename elsewhere in the tree can make the
// kernel unsure whether ".." still lies inside; it says EAGAIN and asks again.
func Openat2(dirfd int, name string, flags int, mode uint32, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: resolve}
	if name == "" {
		name = "."
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dirfd, name, &how)
		if err == unix.EINTR || err == unix.EAGAIN && try < 1000 {
			continue
		}
		return fd, err
	}
}

// OpenFD opens name in the tree; the caller closes the descriptor. The last
// component is followed inside the tree unless flags hold O_NOFOLLOW.
func (r *Root) OpenFD(name string, flags int, mode uint32) (int, error) {
	fd, err := Openat2(r.fd, name, flags, mode, inRoot)
	if err != nil {
		return -1, r.fault("open", name, err)
	}
	return fd, nil
}

// OpenIn is OpenFD as a file. A fifo or device should not be opened for
// reading without O_NONBLOCK: it may block for ever.
func (r *Root) OpenIn(name string, flags int, mode uint32) (*os.File, error) {
	fd, err := r.OpenFD(name, flags, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Sub is the directory name (followed inside the tree) as a tree of its own.
func (r *Root) Sub(name string) (*Root, error) {
	fd, err := r.OpenFD(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Root{fd: fd, name: r.name + "/" + strings.TrimPrefix(name, "/")}, nil
}

// OpenParent opens the directory that holds name's last component and returns
// that component, which is not followed. For the root itself base is ".".
func (r *Root) OpenParent(name string) (fd int, base string, err error) {
	dir, base := split(name)
	switch base {
	case "", ".", "..":
		// The name of a directory by its own dots: open it whole.
		fd, err = r.OpenFD(name, unix.O_PATH|unix.O_DIRECTORY, 0)
		return fd, ".", err
	}
	fd, err = r.OpenFD(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	return fd, base, err
}

// split cuts a name at its last slash; slashes at the end do not count.
func split(name string) (dir, base string) {
	name = strings.TrimRight(name, "/")
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}

// Stat describes what name leads to; links are followed inside the tree.
func (r *Root) Stat(name string) (unix.Stat_t, error) { return r.stat(name, 0) }

// Lstat describes name itself.
func (r *Root) Lstat(name string) (unix.Stat_t, error) { return r.stat(name, unix.O_NOFOLLOW) }

func (r *Root) stat(name string, flags int) (st unix.Stat_t, err error) {
	fd, err := Openat2(r.fd, name, unix.O_PATH|flags, 0, inRoot)
	if err != nil {
		return st, r.fault("stat", name, err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return st, r.fault("stat", name, err)
	}
	return st, nil
}

// Readlink is the target of the symbolic link name, as it is written.
func (r *Root) Readlink(name string) (string, error) {
	fd, err := Openat2(r.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0, inRoot)
	if err != nil {
		return "", r.fault("readlink", name, err)
	}
	defer unix.Close(fd)
	target, err := readlinkat(fd, "")
	if err != nil {
		return "", r.fault("readlink", name, err)
	}
	return target, nil
}

func readlinkat(dirfd int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dirfd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// ErrTooLarge says that a file holds more than the caller is ready to read.
var ErrTooLarge = errors.New("file too large")

// ReadFile reads the regular file name, of at most max bytes. Anything but a
// regular file is refused, and not even opened: a fifo in place of etc/passwd
// would block for ever, and to open a device is to use it (a watchdog restarts
// the machine), whatever the container itself may do with devices.
func (r *Root) ReadFile(name string, max int64) ([]byte, error) {
	b, whole, err := r.ReadPrefix(name, max)
	if err == nil && !whole {
		return nil, r.fault("read", name, ErrTooLarge)
	}
	return b, err
}

// ReadPrefix is ReadFile of no more than the first max bytes; whole says
// whether that is all.
func (r *Root) ReadPrefix(name string, max int64) (b []byte, whole bool, err error) {
	at, err := r.OpenFD(name, unix.O_PATH, 0)
	if err != nil {
		return nil, false, err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, false, r.fault("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, false, r.fault("read", name, errors.New("not a regular file"))
	}
	fd, err := reopen(at)
	if err != nil {
		return nil, false, r.fault("open", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err = io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, false, r.fault("read", name, err)
	}
	if int64(len(b)) > max {
		return b[:max], false, nil
	}
	return b, true, nil
}

// fault names the object of a failure; the errno stays findable by errors.Is.
func (r *Root) fault(op, name string, err error) error {
	if len(name) > 200 {
		name = name[:200] + "…"
	}
	return &os.PathError{Op: op, Path: "/" + strings.TrimLeft(name, "/"), Err: err}
}

// NotExist tells errors that mean "there is nothing of that name".
func NotExist(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// reopen opens for reading what an O_PATH descriptor leads to, which is known to
// be a regular file.
func reopen(at int) (int, error) {
	return unix.Open(fdPath(at), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// fdPath names an open file for the calls that take no descriptor of an
// O_PATH kind. It leads to exactly that file.
func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
