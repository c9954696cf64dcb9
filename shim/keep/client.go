package keep

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cale/shim/stdio"
)

// Client sends to the keeper at a socket's path. The zero Client has none: what it is given is kept by nobody.
type Client struct{ Socket string }

// dial connects. It uses system calls: what package net adds is memory that each supervisor would have.
func (c Client) dial() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	limit := unix.Timeval{Sec: patience}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	name, done, err := stdio.SocketName(c.Socket)
	if err == nil {
		defer done()
		for {
			if err = unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != unix.EINTR {
				break
			}
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to the keeper: %w", err)
	}
	return fd, nil
}

func (c Client) tell(m *message) error {
	if c.Socket == "" {
		return nil
	}
	fd, err := c.dial()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return m.send(fd)
}

// Put has a process's descriptors held, in place of what was held of it before. They stay the caller's too.
func (c Client) Put(e *Entry) error {
	if c.Socket == "" {
		return nil
	}
	m := &message{kind: kindPut, key: e.Key, pid: uint64(e.Pid), request: e.Request}
	return e.Files.lend(func(fds [slots]int) error {
		m.fds = fds
		return c.tell(m)
	})
}

// lend gives the descriptors' numbers for the duration of a call. File.Fd would make them blocking.
func (f *Files) lend(use func(fds [slots]int) error) error {
	fds := [slots]int{-1, -1, -1, -1, -1}
	files := [slots]*os.File{f.Stdio.Stdin, f.Stdio.Stdout, f.Stdio.Stderr, f.Stdio.Console, f.Pidfd}
	var next func(i int) error
	next = func(i int) error {
		for i < slots && files[i] == nil {
			i++
		}
		if i == slots {
			return use(fds)
		}
		rc, err := files[i].SyscallConn()
		if err != nil {
			return err
		}
		cerr := rc.Control(func(fd uintptr) {
			fds[i] = int(fd)
			err = next(i + 1)
		})
		return errors.Join(cerr, err)
	}
	return next(0)
}

// CloseInput has the writing end of a process's input closed.
func (c Client) CloseInput(k Key) error {
	return c.tell(&message{kind: kindCloseInput, key: k, fds: [slots]int{-1, -1, -1, -1, -1}})
}

// Drop lets go of a process; without an exec of the container's others too, without a container of all that the
// supervisor has.
func (c Client) Drop(k Key) error {
	return c.tell(&message{kind: kindDrop, key: k, fds: [slots]int{-1, -1, -1, -1, -1}})
}

// Take gives what is held for a supervisor, which goes on being held. The files are the caller's.
func (c Client) Take(supervisor string) (list []*Entry, err error) {
	defer func() {
		if err != nil {
			for _, e := range list {
				e.Files.Close()
			}
			list = nil
		}
	}()
	fd, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	m := &message{kind: kindTake, key: Key{Supervisor: supervisor}, fds: [slots]int{-1, -1, -1, -1, -1}}
	if err := m.send(fd); err != nil {
		return nil, err
	}
	buf := make([]byte, maxPacket)
	for {
		m := new(message)
		if err := m.receive(fd, buf); err != nil {
			return list, err
		}
		if m.kind == kindEnd {
			return list, nil
		}
		list = append(list, &Entry{Key: m.key, Pid: int(m.pid), Request: m.request, Files: filesOf(m.fds)})
	}
}

func filesOf(fds [slots]int) Files {
	var f [slots]*os.File
	for i, fd := range fds {
		if fd >= 0 {
			// What waits is in the poller, and so costs no thread.
			unix.SetNonblock(fd, true)
			f[i] = os.NewFile(uintptr(fd), "|")
		}
	}
	return Files{Stdio: stdio.Ends{Stdin: f[0], Stdout: f[1], Stderr: f[2], Console: f[3]}, Pidfd: f[4]}
}

// Close closes all.
func (f *Files) Close() {
	for _, x := range []*os.File{f.Stdio.Stdin, f.Stdio.Stdout, f.Stdio.Stderr, f.Stdio.Console, f.Pidfd} {
		if x != nil {
			x.Close()
		}
	}
}

// IsGone tells that there is no keeper.
func IsGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// Watch connects to the keeper and stays connected: the file becomes readable when the keeper is gone. A keeper stays
// for as long as it is watched.
func (c Client) Watch() (*os.File, error) {
	fd, err := c.dial()
	if err != nil {
		return nil, err
	}
	m := &message{kind: kindWatch, fds: [slots]int{-1, -1, -1, -1, -1}}
	if err := m.send(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "keeper"), nil
}
