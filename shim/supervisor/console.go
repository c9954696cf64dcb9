package supervisor

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// consoleTimeout is how long a runtime that has returned may owe the terminal.
const consoleTimeout = 10 * time.Second

// consoleSocket is where a foreign runtime sends a terminal's master.
type consoleSocket struct {
	dir, path string
	l         *net.UnixListener
}

func listenConsole() (*consoleSocket, error) {
	// A short path: it must fit into a socket address.
	dir, err := os.MkdirTemp("/run", "cale-console-")
	if err != nil {
		return nil, err
	}
	s := &consoleSocket{dir: dir, path: filepath.Join(dir, "s")}
	s.l, err = net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

func (s *consoleSocket) close() {
	s.l.Close()
	os.RemoveAll(s.dir)
}

// receive takes the master that the runtime sent as SCM_RIGHTS.
func (s *consoleSocket) receive() (*os.File, error) {
	s.l.SetDeadline(time.Now().Add(consoleTimeout))
	c, err := s.l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(consoleTimeout))
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(name, oob)
	if err != nil {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return nil, err
		}
		for j, fd := range fds {
			unix.CloseOnExec(fd)
			if j > 0 {
				unix.Close(fd)
			}
		}
		if len(fds) > 0 {
			return os.NewFile(uintptr(fds[0]), string(name[:n])), nil
		}
	}
	return nil, errors.New("the runtime sent no terminal")
}
