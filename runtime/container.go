package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"cale/atomicfile"
	"cale/runtime/cgroup"
	"cale/runtime/launch"
	"cale/runtime/linux"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Files of a container's state directory.
const (
	stateFile  = "state.json"
	configFile = "config.json" // the configuration it was created with
	startFifo  = "exec.fifo"   // what a created container waits on, and answers to; gone once started
)

// Container is a container that exists on disk. Its methods may be called by several processes at once.
type Container struct {
	// Warn is as in Options.
	Warn func(msg string)

	dir   string
	rec   record
	spec  *specs.Spec
	pidfd *os.File // init's, if this process made it
	group *cgroup.Cgroup
	ready *Ready // if Options.NotifySocket asks for one and the container is started with its creation
	// holder is a process that keeps systemd's scope until init is in it.
	holder *launch.Proc
}

// validID says whether an ID may name a directory.
func validID(id string) error {
	if id == "" || len(id) > 1024 || id == "." || id == ".." {
		return fmt.Errorf("invalid container ID format: %q", id)
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '+', c == '.', c == '-':
		default:
			return fmt.Errorf("invalid container ID format: %q: invalid character %q", id, c)
		}
	}
	return nil
}

// Load finds a container.
func Load(stateDir, id string) (*Container, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	c := &Container{dir: filepath.Join(stateDir, id)}
	raw, err := os.ReadFile(filepath.Join(c.dir, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		// A creation that was killed at its very start leaves an empty directory.
		if st, err := os.Stat(c.dir); err != nil || !st.IsDir() {
			return nil, ErrNotFound
		}
		c.rec = record{ID: id, NoCgroup: true}
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if err := c.rec.decode(raw); err != nil {
		return nil, fmt.Errorf("state of container %s: %w", id, err)
	}
	if c.rec.Format != recordVersion || c.rec.ID != id {
		return nil, fmt.Errorf("state of container %s: not written by this runtime", id)
	}
	return c, nil
}

// List returns the states of all containers, by ID.
func List(stateDir string) ([]State, error) {
	entries, err := os.ReadDir(stateDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []State
	for _, e := range entries {
		if !e.IsDir() || validID(e.Name()) != nil {
			continue
		}
		c, err := Load(stateDir, e.Name())
		if err != nil {
			continue // deleted meanwhile, or not ours
		}
		if s, err := c.State(); err == nil {
			list = append(list, s)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list, nil
}

// Ready returns the socket on which a container that was made by Run says that it is ready, if it was to have one.
func (c *Container) Ready() *Ready { return c.ready }

// ID returns the container's ID.
func (c *Container) ID() string { return c.rec.ID }

// InitPid returns the pid of the container's first process; it may have ended.
func (c *Container) InitPid() int { return c.rec.Pid }

// PidFD returns init's pidfd if the container was created by this process, else nil. It belongs to the container.
func (c *Container) PidFD() *os.File { return c.pidfd }

// Cgroup returns the container's control group; nil if it has none.
func (c *Container) Cgroup() (*cgroup.Cgroup, error) {
	if c.rec.NoCgroup {
		return nil, nil
	}
	if c.group == nil {
		g, err := cgroup.Open(c.rec.CgroupPath, cgroup.Options{Name: c.rec.ID})
		if err != nil {
			return nil, err
		}
		c.group = g
	}
	return c.group, nil
}

// Spec returns the configuration the container was created with.
func (c *Container) Spec() (*specs.Spec, error) {
	if c.spec == nil {
		s, _, err := spec.Load(filepath.Join(c.dir, configFile))
		if err != nil {
			return nil, err
		}
		if s.Linux == nil {
			s.Linux = &specs.Linux{}
		}
		c.spec = s
	}
	return c.spec, nil
}

// Status asks the kernel what the container is doing.
func (c *Container) Status() (Status, error) {
	if c.rec.Pid == 0 {
		return Creating, nil
	}
	if !c.alive() {
		return Stopped, nil
	}
	// The fifo is init's until it has executed its program, even if whoever started it couldn't remove the file.
	if f, err := openFifo(filepath.Join(c.dir, startFifo), unix.O_WRONLY); err == nil {
		f.Close()
		if c.frozen() {
			return Paused, nil // it could not answer a start
		}
		return Created, nil
	}
	if c.frozen() {
		return Paused, nil
	}
	return Running, nil
}

// frozen reports whether the container's group is.
func (c *Container) frozen() bool {
	g, err := c.Cgroup()
	if err != nil || g == nil {
		return false
	}
	frozen, err := g.Frozen()
	return err == nil && frozen
}

// alive reports whether init is there, as the process it was.
func (c *Container) alive() bool {
	if c.rec.Pid == 0 {
		return false
	}
	st, err := linux.ReadProcessStat(c.rec.Pid)
	return err == nil && st.Start == c.rec.PidStart && !st.Dead()
}

// State returns the container's state as the specification has it.
func (c *Container) State() (State, error) {
	status, err := c.Status()
	if err != nil {
		return State{}, err
	}
	s := State{
		Version: specs.Version, ID: c.rec.ID, Status: status, Bundle: c.rec.Bundle, Rootfs: c.rec.Rootfs,
		Created: c.rec.Created, Owner: owner(c.rec.UID),
	}
	if status != Stopped {
		s.Pid = c.rec.Pid
	}
	if c.spec != nil {
		s.Annotations = c.spec.Annotations
	} else if a, err := spec.Annotations(filepath.Join(c.dir, configFile)); err == nil {
		s.Annotations = a
	}
	return s, nil
}

// save writes state.json. It lives no longer than the machine runs, so nothing is synced.
func (c *Container) save() error {
	return atomicfile.Write(filepath.Join(c.dir, stateFile), c.rec.encode(), 0o600, false)
}

// openInit opens init's pidfd, made sure to be init's.
func (c *Container) openInit() (*os.File, error) {
	if c.rec.Pid == 0 {
		return nil, ErrNotRunning
	}
	fd, err := unix.PidfdOpen(c.rec.Pid, 0)
	if err != nil {
		if err == unix.ESRCH {
			return nil, ErrNotRunning
		}
		return nil, fmt.Errorf("open process %d: %w", c.rec.Pid, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// Read after it was opened: if init is there now, the descriptor is its.
	if !c.alive() {
		f.Close()
		return nil, ErrNotRunning
	}
	return f, nil
}

// stateLock is a lock on a container's state.
type stateLock struct{ f *os.File }

// Close unlocks. A child that is waiting for its start holds a copy of the descriptor, so closing alone would leave
// the lock with it.
func (l *stateLock) Close() error {
	unix.Flock(int(l.f.Fd()), unix.LOCK_UN)
	return l.f.Close()
}

// lockLoaded is lock for a container that was found before: while this waits, others may have changed or deleted it.
func (c *Container) lockLoaded() (*stateLock, error) {
	lock, err := c.lock()
	if err != nil {
		return nil, err
	}
	var have, there unix.Stat_t
	if unix.Fstat(int(lock.f.Fd()), &have) != nil || unix.Stat(c.dir, &there) != nil || have.Ino != there.Ino || have.Dev != there.Dev {
		lock.Close()
		return nil, ErrNotFound
	}
	now, err := Load(filepath.Dir(c.dir), c.rec.ID)
	if err != nil {
		lock.Close()
		return nil, err
	}
	c.rec = now.rec
	return lock, nil
}

// lock keeps other processes from changing the container's state.
func (c *Container) lock() (*stateLock, error) {
	f, err := os.Open(c.dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNotFound
		}
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return &stateLock{f}, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock container %s: %w", c.rec.ID, err)
		}
	}
}
