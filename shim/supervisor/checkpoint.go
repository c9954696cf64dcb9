package supervisor

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"cale/runtime/cgroup"
	"cale/shim/task"
)

// CheckpointOptions are what a Checkpoint request asks of a runtime.
type CheckpointOptions struct {
	// Path is the directory of the images, WorkPath that of CRIU's log.
	Path, WorkPath string
	// Exit ends the container; else it goes on.
	Exit    bool
	Options task.CheckpointOptions
}

// checkpoint saves a container. One that ends by it ends as by a signal.
func (s *Supervisor) checkpoint(ctx context.Context, c *container, r *task.CheckpointRequest) error {
	if !filepath.IsAbs(r.Path) {
		return invalid(errPath)
	}
	if c.init.ended() {
		return precondition("container " + c.id + " is not running")
	}
	o := CheckpointOptions{Path: r.Path}
	if r.Options.URL == task.TypeCheckpointOptions {
		if err := o.Options.Unmarshal(r.Options.Value); err != nil {
			return invalid(err)
		}
	}
	if o.Options.ImagePath != "" {
		o.Path = o.Options.ImagePath
	}
	o.Exit, o.WorkPath = o.Options.Exit, o.Options.WorkPath
	if o.WorkPath == "" {
		o.WorkPath = filepath.Join(c.bundle, "criu-work")
	}
	if err := s.busy(func() error { return c.box().Checkpoint(ctx, o) }); err != nil {
		return err
	}
	s.events.checkpointed(c.id, o.Path)
	return nil
}

// waiting is the Box of a container that is made only when it is started: of a checkpoint.
type waiting struct{ c *container }

func (w waiting) refuse() error {
	return precondition("container " + w.c.id + " is not restored yet")
}

// Kill makes it a container that has ended before it began, also while it is being restored. What would not end a
// process is lost on one that isn't there.
func (w waiting) Kill(sig int, all bool) error {
	p := w.c.init
	p.mu.Lock()
	if p.started {
		p.mu.Unlock()
		return w.c.box().Kill(sig, all)
	}
	defer p.mu.Unlock()
	switch unix.Signal(sig) {
	case 0, unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		return nil
	}
	if p.cancel != nil {
		p.killed = sig
		p.cancel()
		return nil
	}
	p.stoppedLocked(Exit{Status: uint32(128 + sig), At: time.Now()})
	return nil
}

// startRestored starts a container by restoring it. That may take long, so its init isn't locked meanwhile: it can be
// looked at and killed.
func (s *Supervisor) startRestored(ctx context.Context, c *container) (int, error) {
	p := c.init
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	err := c.startable()
	if err == nil && p.cancel != nil {
		err = precondition("container " + c.id + " is being restored already")
	}
	if err == nil {
		p.cancel = cancel
	}
	p.mu.Unlock()
	if err != nil {
		return 0, err
	}
	s.reaper.begin()
	defer s.reaper.end()
	b, err := c.restore(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancel = nil
	if err != nil {
		if p.killed != 0 {
			p.stoppedLocked(Exit{Status: uint32(128 + p.killed), At: time.Now()})
			err = precondition("container " + c.id + " was killed while it was being restored")
		}
		return 0, err
	}
	c.setBox(b)
	s.begun(c)
	p.started, p.state = true, task.StatusRunning
	s.events.start(c.id, p.pid)
	if p.killed != 0 { // the signal came when all was done
		if err := b.Kill(p.killed, false); err != nil {
			s.logf("container " + c.id + ": kill what was restored: " + err.Error())
		}
	}
	return p.pid, nil
}

func (w waiting) Pid() int                    { return 0 }
func (w waiting) Start(context.Context) error { return w.refuse() }
func (w waiting) Exec(context.Context, string, []byte, Streams) (int, error) {
	return 0, w.refuse()
}
func (w waiting) Delete() error                                       { return nil }
func (w waiting) Pause() error                                        { return w.refuse() }
func (w waiting) Resume() error                                       { return w.refuse() }
func (w waiting) Update([]byte) error                                 { return w.refuse() }
func (w waiting) Checkpoint(context.Context, CheckpointOptions) error { return w.refuse() }
func (w waiting) Pids() ([]int, error)                                { return nil, w.refuse() }
func (w waiting) Stats() (*cgroup.Stats, error)                       { return nil, w.refuse() }
func (w waiting) SharesPids() bool                                    { return false }
func (w waiting) OOMKilled() bool                                     { return false }

// workPath is where CRIU's log of a restore goes.
func (o *CreateOptions) workPath() string { return filepath.Join(o.Bundle, "criu-work") }

var errPath = errors.New("checkpoint: an absolute path is needed")
