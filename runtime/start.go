package runtime

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"cale/runtime/launch"

	"golang.org/x/sys/unix"
)

// Start lets a created container run, and returns when its program has been executed or could not be.
func (c *Container) Start(ctx context.Context) error {
	lock, err := c.lockLoaded()
	if err != nil {
		return err
	}
	defer lock.Close()
	return c.start(ctx)
}

// start is Start under the lock.
func (c *Container) start(ctx context.Context) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	switch status {
	case Created:
	case Stopped:
		return errors.New("cannot start a container that has stopped")
	default:
		return fmt.Errorf("cannot start a container in the %s state", status)
	}
	s, err := c.Spec()
	if err != nil {
		return err
	}
	if s.Process == nil {
		// It has come to its end, as one whose program can't be executed.
		if err := c.Kill(unix.SIGKILL, true); err != nil {
			return err
		}
		return ErrNoProcess
	}
	if err := c.startHooks(); err != nil {
		_ = c.Kill(unix.SIGKILL, true)
		return err
	}
	name := filepath.Join(c.dir, startFifo)
	fifo, err := openFifo(name, unix.O_WRONLY)
	if err != nil {
		if errors.Is(err, unix.ENXIO) {
			return ErrNotRunning // nobody has it open any more
		}
		return err
	}
	defer fifo.Close()
	if _, err := unix.Write(int(fifo.Fd()), []byte{1}); err != nil {
		return fmt.Errorf("start container %s: %w", c.rec.ID, err)
	}
	if err := waitStarted(ctx, name, fifo); err != nil {
		return commandError(err, s.Process.Args[0])
	}
	os.Remove(name)
	return c.poststart(s)
}

// openFifo opens one side of a fifo without waiting for the other.
func openFifo(name string, flags int) (*os.File, error) {
	fd, err := unix.Open(name, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// waitStarted waits until init has closed the fifo, by its execve or its end, and reads what it has left in it: the
// byte it was to take if it was killed before, or the report of a failure.
func waitStarted(ctx context.Context, name string, fifo *os.File) error {
	fds := []unix.PollFd{{Fd: int32(fifo.Fd())}} // POLLERR comes unasked when there is no reader
	for {
		n, err := unix.Poll(fds, 100)
		if n > 0 {
			break
		}
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for the start: %w", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	left, err := openFifo(name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer left.Close()
	var m [12]byte
	n, err := unix.Read(int(left.Fd()), m[:])
	switch {
	case n == len(m):
		return &launch.Error{Step: stepExec, Errno: syscall.Errno(binary.NativeEndian.Uint32(m[8:]))}
	case n > 0:
		return ErrNotRunning
	case err != nil && err != unix.EAGAIN:
		return fmt.Errorf("read what became of the start: %w", err)
	}
	return nil
}
