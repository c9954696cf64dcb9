package supervisor

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cale/shim"
	"cale/shim/keep"
	"cale/shim/stdio"
	"cale/shim/task"
)

// What follows lets a container outlive its supervisor. The keeper holds the supervisor's ends of each process's
// streams and the process's pidfd. A supervisor that takes over asks for them: it is not the parent of what it finds,
// so ends come by pidfd.

// hold has the keeper hold what this supervisor has of a process that runs.
func (s *Supervisor) hold(c *container, p *process) {
	if s.cfg.Keeper.Socket == "" {
		return
	}
	key := keep.Key{Supervisor: s.cfg.ID, Container: c.id, Exec: p.execID}
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return // it has ended, and been reaped
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	s.holdBy(c, p, key, pidfd)
}

func (s *Supervisor) holdBy(c *container, p *process, key keep.Key, pidfd *os.File) {
	e := &keep.Entry{Key: key, Pid: p.pid}
	if p == c.init {
		r := task.CreateRequest{ID: c.id, Bundle: c.bundle, Terminal: p.req.Terminal, Stdin: p.req.Stdin,
			Stdout: p.req.Stdout, Stderr: p.req.Stderr, Options: c.options}
		e.Request = r.Append(nil)
	} else {
		r := task.ExecRequest{ID: c.id, ExecID: p.execID, Terminal: p.req.Terminal, Stdin: p.req.Stdin,
			Stdout: p.req.Stdout, Stderr: p.req.Stderr}
		e.Request = r.Append(nil)
	}
	closing := func() {
		if err := s.cfg.Keeper.CloseInput(key); err != nil {
			s.logf("container " + c.id + ": input is still held: " + err.Error())
		}
	}
	p.io.Hold(closing, func(ends stdio.Ends) {
		e.Files = keep.Files{Stdio: ends, Pidfd: pidfd}
		if err := s.cfg.Keeper.Put(e); err != nil {
			s.logf("container " + c.id + ": would not outlive this supervisor: " + err.Error())
		}
	})
}

// release has the keeper let go of a process, or of all of a container.
func (s *Supervisor) release(id, execID string) {
	if err := s.cfg.Keeper.Drop(keep.Key{Supervisor: s.cfg.ID, Container: id, Exec: execID}); err != nil {
		s.logf("container " + id + ": is still held: " + err.Error())
	}
}

// holdAll gives a new keeper all that this supervisor has.
func (s *Supervisor) holdAll() {
	s.mu.Lock()
	var all []*container
	for _, c := range s.containers {
		if c != nil {
			all = append(all, c)
		}
	}
	s.mu.Unlock()
	for _, c := range all {
		c.mu.Lock()
		procs := []*process{c.init}
		for _, p := range c.execs {
			procs = append(procs, p)
		}
		c.mu.Unlock()
		for _, p := range procs {
			p.mu.Lock()
			if p.pid != 0 && p.state != task.StatusStopped {
				s.hold(c, p)
			}
			p.mu.Unlock()
		}
	}
}

// lockPatience is how long a supervisor that takes over waits for the other to be gone.
const lockPatience = 5 * time.Second

// Lock makes this process the only supervisor of the working directory. The lock ends with the process: it is not one
// that a child inherits, which may outlive it.
func Lock() error {
	fd, err := unix.Open(shim.LockFile, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return &os.PathError{Op: "open", Path: shim.LockFile, Err: err}
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(5 * time.Millisecond) {
		err = unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		return errors.New("another supervisor has this bundle")
	}
	return nil // the descriptor stays open for as long as the lock is wanted
}

// Adopt takes over what the keeper has of a supervisor by the same ID. It fails when there is nothing.
func (s *Supervisor) Adopt(ctx context.Context) error {
	entries, err := s.cfg.Keeper.Take(s.cfg.ID)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return errors.New("the keeper has nothing of supervisor " + s.cfg.ID)
	}
	for _, execs := range []bool{false, true} {
		for _, e := range entries {
			if (e.Exec != "") != execs {
				continue
			}
			take := s.adopt
			if execs {
				take = s.adoptExec
			}
			if err := take(ctx, e); err != nil {
				s.logf("container " + e.Container + ": can't be taken over: " + err.Error())
				e.Files.Close()
			}
		}
	}
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.containers))
	s.mu.Unlock()
	for _, c := range all {
		if c != nil {
			s.endStrays(c)
		}
	}
	return nil
}

// endStrays ends what nobody waits for any more: commands that were to be run from start to end (probes), and those that
// the other supervisor was just making. Whoever asked for them was told that it died. They are known by having come into
// the container's pid namespace from outside, as no child of a process inside is. In a namespace that several containers
// share, what lost its parent is a child of the first process, which may be in none of this one's groups.
func (s *Supervisor) endStrays(c *container) {
	if _, ok := c.box().(Remote); ok {
		return
	}
	pids, err := c.box().Pids()
	if err != nil {
		return
	}
	known := map[int]bool{c.init.pid: true}
	c.mu.Lock()
	for _, p := range c.execs {
		known[p.pid] = true
	}
	c.mu.Unlock()
	for _, pid := range pids {
		if known[pid] {
			continue
		}
		parent, depth := parentage(pid)
		if parent <= 0 || slices.Contains(pids, parent) {
			continue
		}
		if _, outside := parentage(parent); outside > 0 && outside < depth {
			s.logf("container " + c.id + ": ending a command that the other supervisor ran")
			killTree(pid)
		}
	}
}

// parentage is a process's parent, and in how many pid namespaces it is, from this process's on; 0 if it is gone.
func parentage(pid int) (parent, depth int) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case name == "PPid" && len(f) == 1:
			parent, _ = strconv.Atoi(f[0])
		case name == "NSpid":
			depth = len(f)
		}
	}
	return parent, depth
}

func (s *Supervisor) adopt(ctx context.Context, e *keep.Entry) error {
	var r task.CreateRequest
	if err := r.Unmarshal(e.Request); err != nil {
		return err
	}
	var opts task.RuncOptions
	if r.Options.URL == task.TypeOptions {
		if err := opts.Unmarshal(r.Options.Value); err != nil {
			return err
		}
	}
	if e.Files.Pidfd == nil || r.ID != e.Container || !filepath.IsAbs(r.Bundle) {
		return errors.New("the keeper's entry is of no use")
	}
	o := CreateOptions{ID: r.ID, Bundle: r.Bundle, StateDir: s.stateDir(r.Bundle), Options: opts}
	if r.Terminal {
		o.Streams.Console = func(*os.File) {} // it is there already
	}
	box, status, err := s.runtime(opts).Load(ctx, o, e.Pid)
	if err != nil {
		return err
	}
	req := stdio.Request{Container: r.ID, Terminal: r.Terminal, Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr}
	streams, err := s.hubs.Adopt(req, e.Files.Stdio)
	if err != nil {
		return err
	}
	c := &container{id: r.ID, bundle: r.Bundle, foreign: opts.BinaryName != "", made: box, options: r.Options.Clone(), init: newProcess(req, streams)}
	p := c.init
	p.pid = e.Pid
	if status != task.StatusCreated {
		p.started, p.state = true, task.StatusRunning
	}
	c.paused = status == task.StatusPaused
	s.put(c.id, c)
	streams.RunAdopted()
	// The keeper goes on holding; of this supervisor's input it is to know when it closes.
	s.holdBy(c, p, e.Key, e.Files.Pidfd)
	if x, err := shim.ReadExit(r.Bundle, r.ID); err == nil {
		// It had ended, and the one who saw it may have been the only one who could.
		e.Files.Pidfd.Close()
		go func() {
			streams.Exited()
			p.stopped(Exit{Status: x.Status, At: x.At, OOM: x.OOMKilled, Unknown: x.Unknown})
		}()
		return nil
	}
	s.watchAdopted(c, p, e, func(how end) { s.initExited(c, how) })
	return nil
}

// watchAdopted has exited called when an adopted process ends.
func (s *Supervisor) watchAdopted(c *container, p *process, e *keep.Entry, exited func(end)) {
	if _, ok := c.box().(Remote); ok {
		e.Files.Pidfd.Close()
		s.watch(c, p.execID, p.io, e.Pid, exited)
		return
	}
	s.reaper.adopt(e.Pid, e.Files.Pidfd, exited)
}

func (s *Supervisor) adoptExec(_ context.Context, e *keep.Entry) error {
	var r task.ExecRequest
	if err := r.Unmarshal(e.Request); err != nil {
		return err
	}
	c, _, err := s.find(e.Container, "")
	if err != nil {
		return err
	}
	if e.Files.Pidfd == nil || r.ExecID != e.Exec {
		return errors.New("the keeper's entry is of no use")
	}
	req := stdio.Request{Container: r.ID, Exec: r.ExecID, Terminal: r.Terminal, Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr}
	streams, err := s.hubs.Adopt(req, e.Files.Stdio)
	if err != nil {
		return err
	}
	p := newProcess(req, streams)
	p.pid, p.started, p.state = e.Pid, true, task.StatusRunning
	c.mu.Lock()
	if c.execs == nil {
		c.execs = make(map[string]*process)
	}
	c.execs[p.execID] = p
	c.mu.Unlock()
	streams.RunAdopted()
	s.holdBy(c, p, e.Key, e.Files.Pidfd)
	s.watchAdopted(c, p, e, func(how end) { s.execExited(c, p, how) })
	return nil
}
