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
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
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
		return errNoProcess
	}
	if err := c.startHooks(); err != nil {
		c.Kill(unix.SIGKILL, true)
		return err
	}
	result, err := openFifo(filepath.Join(c.dir, resultFifo), unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer result.Close()
	start, err := openFifo(filepath.Join(c.dir, startFifo), unix.O_WRONLY)
	if err != nil {
		if errors.Is(err, unix.ENXIO) {
			return ErrNotRunning // nobody has it open any more
		}
		return err
	}
	_, err = unix.Write(int(start.Fd()), []byte{1})
	start.Close()
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.rec.ID, err)
	}
	failed := waitResult(ctx, result)
	os.Remove(filepath.Join(c.dir, startFifo))
	os.Remove(filepath.Join(c.dir, resultFifo))
	if failed != nil {
		return commandError(failed, s.Process.Args[0])
	}
	c.poststart(s, func(string) {})
	return nil
}

// openFifo opens one side of a fifo without waiting for the other.
func openFifo(name string, flags int) (*os.File, error) {
	fd, err := unix.Open(name, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// waitResult waits until a started init has either executed its program, which closes its side, or told its error.
func waitResult(ctx context.Context, result *os.File) error {
	stop := context.AfterFunc(ctx, func() { result.SetReadDeadline(longAgo) })
	defer stop()
	var m [12]byte
	n, err := result.Read(m[:])
	if n == len(m) {
		return &launch.Error{Step: stepExec, Errno: syscall.Errno(binary.NativeEndian.Uint32(m[8:]))}
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
