package runtime

import (
	"errors"
	"fmt"
	"os"

	"cale/runtime/cgroup"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Kill sends a signal to init, or with all to every process of the container. SIGKILL always goes to all: where init
// has no pid namespace of its own, the others would outlive it.
func (c *Container) Kill(sig unix.Signal, all bool) error {
	g, err := c.Cgroup()
	if err != nil {
		return err
	}
	if g != nil && (all || sig == unix.SIGKILL && !c.ownPids()) {
		return killGroup(g, sig)
	}
	f, err := c.openInit()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.PidfdSendSignal(int(f.Fd()), sig, nil, 0); err != nil {
		if err == unix.ESRCH {
			return ErrNotRunning
		}
		return fmt.Errorf("signal container %s: %w", c.rec.ID, err)
	}
	if sig == unix.SIGKILL && g != nil {
		// On v1 a frozen process doesn't die.
		if frozen, err := g.Frozen(); err == nil && frozen {
			return g.Thaw()
		}
	}
	return nil
}

// ownPids reports whether the kernel ends the container's other processes with init.
func (c *Container) ownPids() bool {
	s, err := c.Spec()
	return err == nil && spec.NewNamespace(s, specs.PIDNamespace)
}

// killGroup signals all processes of a group.
func killGroup(g *cgroup.Cgroup, sig unix.Signal) error {
	if !g.Exists() {
		return ErrNotRunning
	}
	if sig == unix.SIGKILL {
		return g.Kill()
	}
	pids, err := g.Pids()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return ErrNotRunning
	}
	var failed error
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
			failed = fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return failed
}

// Delete removes what is left of a container that has stopped, or with force of any.
func (c *Container) Delete(force bool) error {
	if force {
		// Whoever has the lock may be waiting for it.
		if f, err := c.openInit(); err == nil {
			unix.PidfdSendSignal(int(f.Fd()), unix.SIGKILL, nil, 0)
			f.Close()
		}
	}
	lock, err := c.lockLoaded()
	if err != nil {
		if force && errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}
	defer lock.Close()
	status, err := c.Status()
	if err != nil {
		return err
	}
	if !force && status != Stopped && status != Created && status != Creating {
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", c.rec.ID, status)
	}
	return c.remove()
}

// remove ends all processes of the container, waits for its end, and removes its group and directory; the directory
// last, so that a removal that was interrupted can be repeated.
func (c *Container) remove() error {
	g, err := c.Cgroup()
	if err != nil {
		g = nil // nothing could have been made there either
	}
	if f, err := c.openInit(); err == nil {
		unix.PidfdSendSignal(int(f.Fd()), unix.SIGKILL, nil, 0)
		if g != nil && g.Exists() {
			if frozen, err := g.Frozen(); err == nil && frozen {
				g.Thaw()
			}
		}
		waitEnd(f)
		f.Close()
	}
	if g != nil && g.Exists() {
		if pids, err := g.Pids(); err == nil && len(pids) > 0 {
			if err := g.Kill(); err != nil {
				return err
			}
		}
		if u, ok := c.unit(); ok {
			// A scope goes by itself too, once nothing is in it.
			if err := u.Stop(); err != nil && c.Warn != nil {
				c.Warn(err.Error())
			}
		}
		if err := g.Destroy(); err != nil {
			return err
		}
	}
	if err := c.rec.Resctrl.Remove(); err != nil {
		return err
	}
	if c.pidfd != nil {
		c.pidfd.Close()
		c.pidfd = nil
	}
	c.poststop()
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove state of container %s: %w", c.rec.ID, err)
	}
	return nil
}

// waitEnd waits until a process has ended, reaped or not, for at most ten seconds.
func waitEnd(pidfd *os.File) {
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for range 100 {
		if n, err := unix.Poll(fds, 100); n > 0 || (err != nil && err != unix.EINTR) {
			return
		}
	}
}
