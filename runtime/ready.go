package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// readyDir is the directory of the state directory that a container sees at the path of the service manager's socket,
// and readySocket the socket in it.
const (
	readyDir    = "notify"
	readySocket = "notify"
)

// Ready is a socket on which a container says that it is ready, as services do (sd_notify(3)). What comes is passed on
// to the service manager by a process that it knows: the container's processes are none of the service's to it, and
// its socket isn't in their file system.
type Ready struct{ fd int }

// addReady gives the container the directory with the socket, at the path where the service manager's is outside, as
// crun does.
func (c *Container) addReady(s *specs.Spec, socket string) error {
	if !filepath.IsAbs(socket) {
		return fmt.Errorf("NOTIFY_SOCKET=%q: only sockets with an absolute path can be passed on", socket)
	}
	dir := filepath.Join(c.dir, readyDir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: socket, Type: "bind", Source: dir, Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	s.Process.Env = append(s.Process.Env, "NOTIFY_SOCKET="+filepath.Join(socket, readySocket))
	return nil
}

// ListenReady makes the socket of a container that was created with Options.NotifySocket; for others it fails with
// ErrNotExist. The caller has to close it.
func (c *Container) ListenReady() (*Ready, error) {
	// By a descriptor: a socket's name has little room.
	dir, err := os.OpenFile(filepath.Join(c.dir, readyDir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	name := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), readySocket)
	// A start that failed has left one.
	_ = unix.Unlink(name)
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err == nil {
		err = unix.Chmod(name, 0o777) // whoever the container's processes are
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	return &Ready{fd}, nil
}

// Close closes the socket.
func (r *Ready) Close() { unix.Close(r.fd) }

// Forward waits until the container is ready or the process that pidfd is of has ended, and tells the service manager
// who listens at socket the former. With mainPID, not 0, the service's main process is that one from then on.
func (r *Ready) Forward(socket string, pidfd, mainPID int) error {
	fds := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
	buf := make([]byte, 4096)
	for {
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return fmt.Errorf("notify socket: %w", err)
		}
		if fds[0].Revents == 0 {
			return nil
		}
		n, err := unix.Read(r.fd, buf)
		if err != nil {
			return fmt.Errorf("notify socket: %w", err)
		}
		for line := range strings.Lines(string(buf[:n])) {
			// Nothing else: the rest would steer the service, which isn't the container's to do.
			if strings.TrimSpace(line) == "READY=1" {
				return tellReady(socket, mainPID)
			}
		}
	}
}

// tellReady tells a service manager that the service is ready, and waits until it has read that: it may know the
// sender only while that lives.
func tellReady(socket string, mainPID int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrUnix{Name: socket}
	if err := unix.Sendto(fd, []byte("READY=1"), unix.MSG_NOSIGNAL, to); err != nil {
		return fmt.Errorf("NOTIFY_SOCKET=%s: %w", socket, err)
	}
	if mainPID != 0 {
		if err := unix.Sendto(fd, fmt.Append(nil, "MAINPID=", mainPID), unix.MSG_NOSIGNAL, to); err != nil {
			return fmt.Errorf("NOTIFY_SOCKET=%s: %w", socket, err)
		}
	}
	// sd_notify_barrier(3): the descriptor is closed by who has read all that came before it.
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	err = unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(pipe[1]), to, unix.MSG_NOSIGNAL)
	unix.Close(pipe[1])
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET=%s: %w", socket, err)
	}
	const patience = 30_000 // ms, as systemd's own clients have
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pipe[0]), Events: unix.POLLHUP}}, patience)
	for err == unix.EINTR {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(pipe[0]), Events: unix.POLLHUP}}, patience)
	}
	if err == nil && n == 0 {
		err = errors.New("the service manager doesn't read")
	}
	return err
}

// ForwardReady is Forward for a container that this process hasn't made.
func (c *Container) ForwardReady(r *Ready, socket string) error {
	init, err := c.openInit()
	if err != nil {
		return nil // it has ended already
	}
	defer init.Close()
	return r.Forward(socket, int(init.Fd()), c.rec.Pid)
}
