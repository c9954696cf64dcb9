package supervisor

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"cale/atomicfile"
	"cale/shim/stdio"
	"cale/shim/task"
	"cale/shim/ttrpc"
)

// exitFile keeps how a container's init ended; package shim reads it.
const exitFile = "exit.json"

type container struct {
	id, bundle string
	foreign    bool // made by another runtime's program
	init       *process
	options    task.Any // what was asked of the runtime at its creation
	// restore makes the container of a checkpoint, when it is started; nil for others.
	restore func(ctx context.Context) (Box, error)

	mu      sync.Mutex
	made    Box
	execs   map[string]*process
	runs    map[string]context.CancelFunc // what ends each
	paused  bool
	deleted bool
}

// box is the container as the runtime has it.
func (c *container) box() Box {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

func (c *container) setBox(b Box) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = b
}

// find returns the init ("") or an exec.
func (c *container) find(execID string) (*process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.execs[execID]; p != nil {
		return p, nil
	}
	return nil, notFound("exec " + execID + " of container " + c.id)
}

// initExited runs when init has been reaped.
func (s *Supervisor) initExited(c *container, how end) {
	e := Exit{Status: how.status, Unknown: how.unknown, At: time.Now(), OOM: c.box().OOMKilled()}
	if c.box().SharesPids() {
		// The others would live on without supervision, holding the streams.
		s.reaper.begin()
		c.box().Kill(int(sigKill), true)
		s.reaper.end()
	}
	c.init.io.Exited()
	_, pid, _ := c.init.status()
	if err := writeExit(c, pid, e); err != nil {
		s.logf("container " + c.id + ": keep exit status: " + err.Error())
	}
	if e.OOM {
		s.events.oom(c.id)
	}
	c.init.stopped(e)
	s.events.exit(c.id, c.id, pid, e)
	s.tidy()
}

// watch has exited called when a process of the container ends. io is what it has, or nil.
func (s *Supervisor) watch(c *container, execID string, io *stdio.IO, pid int, exited func(end)) {
	remote, ok := c.box().(Remote)
	if !ok {
		s.reaper.watch(pid, exited)
		return
	}
	if io != nil {
		io.StdinEnded(func() { remote.CloseStdin(execID) })
	}
	go func() {
		status := remote.Wait(execID)
		if io != nil {
			io.AwaitOutput(remoteOutput) // it comes by way of the other shim
		}
		exited(end{status: status})
	}()
}

// remoteOutput is how long another shim has for what an ended process wrote; containerd's shims take as long.
const remoteOutput = 2 * time.Second

func (s *Supervisor) execExited(c *container, p *process, how end) {
	e := Exit{Status: how.status, Unknown: how.unknown, At: time.Now()}
	p.io.Exited()
	p.stopped(e)
	_, pid, _ := p.status()
	s.events.exit(c.id, p.execID, pid, e)
	s.tidy()
}

// writeExit leaves the exit status for a client that was not there. It need not
// outlive a reboot: no fsync.
func writeExit(c *container, pid int, e Exit) error {
	b := append([]byte(`{"id":`), strconv.Quote(c.id)...)
	b = strconv.AppendUint(append(b, `,"status":`...), uint64(e.Status), 10)
	b = e.At.UTC().AppendFormat(append(b, `,"at":"`...), time.RFC3339Nano)
	b = strconv.AppendInt(append(b, `","pid":`...), int64(pid), 10)
	b = strconv.AppendBool(append(b, `,"oom":`...), e.OOM)
	if e.Unknown {
		b = append(b, `,"unknown":true`...)
	}
	b = append(b, "}\n"...)
	return atomicfile.Write(filepath.Join(c.bundle, exitFile), b, 0o600, false)
}

// startable says why a container can't be started; its init is locked.
func (c *container) startable() error {
	if c.init.state == task.StatusStopped {
		return precondition("container " + c.id + " has ended and can't be started")
	}
	if c.init.started {
		return precondition("container " + c.id + " is started already")
	}
	return nil
}

func (s *Supervisor) start(ctx context.Context, c *container) (int, error) {
	if c.restore != nil {
		return s.startRestored(ctx, c)
	}
	p := c.init
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := c.startable(); err != nil {
		return 0, err
	}
	s.reaper.begin()
	defer s.reaper.end()
	if err := c.box().Start(ctx); err != nil {
		return 0, err
	}
	p.started = true
	if p.state == task.StatusCreated {
		p.state = task.StatusRunning
	}
	s.events.start(c.id, p.pid)
	return p.pid, nil
}

func (s *Supervisor) startExec(ctx context.Context, c *container, p *process) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started || p.state == task.StatusStopped {
		return 0, precondition("exec " + p.execID + " is started already")
	}
	if c.init.ended() {
		return 0, precondition("container " + c.id + " is not running")
	}
	p.started = true
	s.reaper.begin()
	pid, err := c.box().Exec(ctx, p.execID, p.spec, p.streams())
	p.spec = nil
	if err != nil {
		s.reaper.end()
		p.state, p.exit = task.StatusStopped, Exit{Status: unknownExit, At: time.Now()}
		p.io.Close()
		close(p.done)
		return 0, err
	}
	p.pid, p.state = pid, task.StatusRunning
	p.io.Run()
	s.hold(c, p)
	s.events.execStarted(c.id, p.execID, pid)
	s.watch(c, p.execID, p.io, pid, func(how end) { s.execExited(c, p, how) })
	s.reaper.end()
	return pid, nil
}

func (s *Supervisor) kill(c *container, p *process, sig uint32, all bool) error {
	if sig > 64 {
		return &ttrpc.Status{Code: ttrpc.InvalidArgument, Message: "invalid signal " + strconv.Itoa(int(sig))}
	}
	if p.execID != "" {
		p.mu.Lock()
		state, pid := p.state, p.pid
		p.mu.Unlock()
		if state == task.StatusCreated {
			return precondition("exec " + p.execID + " is not started")
		}
		if remote, ok := c.box().(Remote); ok {
			return remote.KillExec(p.execID, int(sig))
		}
		ok, err := s.reaper.signal(pid, signalOf(sig))
		if !ok {
			return notFound("process of exec " + p.execID + " already finished")
		}
		return err
	}
	if p.ended() && !all {
		return notFound("process already finished")
	}
	s.reaper.begin()
	defer s.reaper.end()
	return c.box().Kill(int(sig), all)
}

// deleteContainer removes an ended (or never started) container.
func (s *Supervisor) deleteContainer(ctx context.Context, c *container) (Exit, error) {
	p := c.init
	state, _, _ := p.status()
	if state == task.StatusRunning {
		return Exit{}, precondition("cannot delete running container " + c.id)
	}
	if state == task.StatusCreated {
		s.reaper.begin()
		err := c.box().Kill(int(sigKill), true)
		s.reaper.end()
		if err != nil && !p.ended() {
			return Exit{}, err
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			return Exit{}, ctx.Err()
		}
	}
	c.mu.Lock()
	if c.deleted {
		c.mu.Unlock()
		return Exit{}, notFound("container " + c.id)
	}
	c.deleted = true
	execs := c.execs
	c.execs = nil
	c.mu.Unlock()
	s.reaper.begin()
	err := c.box().Delete()
	s.reaper.end()
	if err != nil {
		c.mu.Lock()
		c.deleted, c.execs = false, execs
		c.mu.Unlock()
		return Exit{}, err
	}
	for _, e := range execs {
		if e.ended() || !e.startedOnce() {
			e.io.Close()
			e.stopped(Exit{Status: unknownExit, At: time.Now()})
		}
	}
	p.io.Close()
	s.release(c.id, "")
	_, pid, exit := p.status()
	s.forget(c)
	s.events.deleted(c.id, "", pid, exit)
	return exit, nil
}

func (p *process) startedOnce() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}

func (s *Supervisor) deleteExec(c *container, p *process) (Exit, error) {
	if state, _, _ := p.status(); state == task.StatusRunning {
		return Exit{}, precondition("cannot delete running exec " + p.execID)
	}
	c.mu.Lock()
	if c.execs[p.execID] != p {
		c.mu.Unlock()
		return Exit{}, notFound("exec " + p.execID)
	}
	delete(c.execs, p.execID)
	c.mu.Unlock()
	p.io.Close()
	s.release(c.id, p.execID)
	p.stopped(Exit{Status: unknownExit, At: time.Now()})
	_, _, exit := p.status()
	return exit, nil
}

func notFound(what string) error {
	return &ttrpc.Status{Code: ttrpc.NotFound, Message: what + ": not found"}
}

func precondition(text string) error {
	return &ttrpc.Status{Code: ttrpc.FailedPrecondition, Message: text}
}

var errGone = errors.New("the shim is shutting down")
