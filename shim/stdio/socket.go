package stdio

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// listen makes the socket with system calls: net.Listen first reads the
// kernel's backlog limit through a 64 KiB buffer, which a shim would keep.
func listen(path string) (*net.UnixListener, error) {
	fd, err := ListenFD(path)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		os.Remove(path)
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// ListenFD makes a listening Unix socket at path, accessible to its owner only,
// in place of whatever was there. The descriptor is close-on-exec and belongs to
// the caller.
func ListenFD(path string) (int, error) { return listenFD(path, unix.SOCK_STREAM, 128) }

// ListenPackets is ListenFD for a socket of packets, of which backlog may wait.
func ListenPackets(path string, backlog int) (int, error) {
	return listenFD(path, unix.SOCK_SEQPACKET, backlog)
}

func listenFD(path string, kind, backlog int) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = bind(fd, path); err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func bind(fd int, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// The file gets the mode of the socket at bind: it is never open to others.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	name, done, err := SocketName(path)
	if err != nil {
		return err
	}
	defer done()
	return os.NewSyscallError("bind "+path, unix.Bind(fd, &unix.SockaddrUnix{Name: name}))
}

// SocketName returns a name for the socket at path that fits into a socket
// address (107 bytes): a long path goes by its directory's descriptor, which
// done releases.
func SocketName(path string) (name string, done func(), err error) {
	if len(path) < 108 {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	name = "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	return name, func() { dir.Close() }, nil
}
