package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cale/shim"
)

const (
	defaultStop = 10 * time.Second
	killGrace   = 30 * time.Second // for the kernel to end a killed process
)

// Stop asks a container's process to end, and makes it end when it doesn't in time. Once begun it goes on when the
// client leaves (moby#45731).
func (e *Engine) Stop(ctx context.Context, ref string, o StopOptions) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	return e.stop(ctx, c, o, true)
}

// stop stops a container; asked says that a client wants it to stay stopped.
func (e *Engine) stop(ctx context.Context, c *container, o StopOptions, asked bool) error {
	end := e.begin()
	if err := c.settle(ctx); err != nil {
		end()
		return err
	}
	c.mu.Lock()
	name := o.Signal
	if name == "" {
		name = c.rec.Run.StopSignal
	}
	timeout := defaultStop
	if c.rec.Spec.StopTimeout != nil {
		timeout = time.Duration(*c.rec.Spec.StopTimeout) * time.Second
	}
	r, planned := c.run, c.cancelRestart()
	if asked && (r != nil || planned) {
		c.rec.Stopped = true
		if c.rec.Spec.Restart.Name != "" && c.rec.Spec.Restart.Name != "no" {
			if err := c.save(true); err != nil {
				e.cfg.Log("%v", err)
			}
		}
	}
	c.mu.Unlock()
	sig, err := parseSignal(name)
	if err != nil {
		end()
		return err
	}
	if o.Timeout != nil {
		timeout = time.Duration(*o.Timeout) * time.Second
	}
	if r == nil {
		end()
		if planned {
			return nil
		}
		return fail(ErrNotModified, "container %s is not running", c.id)
	}
	done := make(chan error, 1)
	go func() {
		defer end()
		err := e.stopRun(context.WithoutCancel(ctx), c, r, sig, timeout)
		if err == nil && asked {
			e.emit(c, "stop")
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settle waits while a container is between two states: just being started, or at its end and not yet planned to be
// restarted. Who takes no notice of that finds nothing to stop, and it runs on.
func (c *container) settle(ctx context.Context) error {
	c.mu.Lock()
	clear := c.run != nil || c.restart != nil
	c.mu.Unlock()
	if clear {
		return nil
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	c.op.unlock()
	return nil
}

func (e *Engine) stopRun(ctx context.Context, c *container, r *run, sig syscall.Signal, timeout time.Duration) error {
	if err := e.signal(ctx, c, r, sig); err != nil && !gone(err) {
		return fmt.Errorf("cannot stop container: %s: %w", c.id, err)
	}
	var late <-chan time.Time
	if timeout >= 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-r.done:
		return nil
	case <-e.ctx.Done():
		return fail(ErrUnavailable, "the engine is closing")
	case <-late:
	}
	return e.killRun(ctx, c, r)
}

// killRun ends a run for certain.
func (e *Engine) killRun(ctx context.Context, c *container, r *run) error {
	err := e.signal(ctx, c, r, unix.SIGKILL)
	if stopped := (*shim.StoppedError)(nil); errors.As(err, &stopped) {
		// Whoever takes over from it answers.
		e.cfg.Log("container %s: %v; it is killed", c.id, err)
		if err = unix.Kill(stopped.Pid, unix.SIGKILL); err == nil {
			err = e.signal(ctx, c, r, unix.SIGKILL)
		}
	}
	if err != nil && !gone(err) {
		return fmt.Errorf("cannot kill container: %s: %w", c.id, err)
	}
	t := time.NewTimer(killGrace)
	defer t.Stop()
	select {
	case <-r.done:
		return nil
	case <-e.ctx.Done():
		return fail(ErrUnavailable, "the engine is closing")
	case <-t.C:
		return fmt.Errorf("container %s: its process %d did not end in %s after SIGKILL", c.id, r.pid, killGrace)
	}
}

func gone(err error) bool {
	return shim.IsNotFound(err) || shim.IsNotRunning(err) || shim.IsUnavailable(err)
}

// signal sends a signal to the first process. One that is frozen goes on so that it can receive it.
func (e *Engine) signal(ctx context.Context, c *container, r *run, sig syscall.Signal) error {
	if err := c.call(ctx, func(ctx context.Context) error { return r.shim.Kill(ctx, c.id, "", uint32(sig), false) }); err != nil {
		return err
	}
	e.emit(c, "kill", "signal", strconv.Itoa(int(sig)))
	c.mu.Lock()
	paused := c.run == r && c.rec.State.Status == Paused
	c.mu.Unlock()
	if !paused {
		return nil
	}
	if err := r.shim.Resume(ctx, c.id); err != nil && !gone(err) {
		// Killing may have thawed it.
		if st, serr := r.shim.State(ctx, c.id, ""); serr == nil && st.Status == shim.StatusPaused {
			return err
		}
	}
	c.mu.Lock()
	if c.run == r && c.rec.State.Status == Paused {
		c.rec.State.Status = Running
	}
	c.mu.Unlock()
	return nil
}

// Kill sends a signal; "" is SIGKILL.
func (e *Engine) Kill(ctx context.Context, ref, signal string) error {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if signal == "" {
		signal = "KILL"
	}
	sig, err := parseSignal(signal)
	if err != nil {
		return err
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	r := c.run
	if r != nil || c.restart != nil {
		stopSig, err := parseSignal(c.rec.Run.StopSignal)
		switch {
		// These are meant to end it, so the restart policy keeps away. Others are messages to the process.
		case err == nil && sig == stopSig, sig == unix.SIGKILL, sig == unix.SIGTERM, sig == unix.SIGINT, sig == unix.SIGQUIT:
			c.rec.Stopped = true
			if c.cancelRestart() && r == nil {
				c.mu.Unlock()
				return nil
			}
		}
	}
	c.mu.Unlock()
	if r == nil {
		return conflict("cannot kill container: %s: container %s is not running", ref, c.id)
	}
	if err := e.signal(ctx, c, r, sig); err != nil {
		if shim.IsUnavailable(err) && !hasEnded(c) {
			return fail(ErrUnavailable, "cannot kill container: %s: its supervisor died over it; the signal may have come or not", ref)
		}
		if gone(err) {
			return conflict("cannot kill container: %s: container %s is not running", ref, c.id)
		}
		return fmt.Errorf("cannot kill container: %s: %w", ref, err)
	}
	if sig == unix.SIGKILL {
		// Docker answers when the process has ended, so that what follows finds it so.
		t := time.NewTimer(10 * time.Second)
		defer t.Stop()
		select {
		case <-r.done:
		case <-ctx.Done():
		case <-t.C:
		}
	}
	return nil
}

// Restart stops a container if it runs, and starts it.
func (e *Engine) Restart(ctx context.Context, ref string, o StopOptions) error {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	c.mu.Lock()
	c.holdRemoval = true // an AutoRemove container isn't at its end
	c.rec.Stopped = true // nor may the policy start it at the same time
	c.mu.Unlock()
	err = e.stop(ctx, c, o, false)
	c.op.lock(ctx)
	defer c.op.unlock()
	c.mu.Lock()
	c.holdRemoval = false
	c.mu.Unlock()
	if err != nil && !errors.Is(err, ErrNotModified) {
		return err
	}
	if err := e.start(ctx, c, "", false); err != nil && !errors.Is(err, ErrNotModified) {
		return fmt.Errorf("Cannot restart container %s: %w", ref, err)
	}
	e.emit(c, "restart")
	return nil
}

// Pause freezes a container.
func (e *Engine) Pause(ctx context.Context, ref string) error {
	return e.setPaused(ctx, ref, true)
}

// Unpause lets it go on.
func (e *Engine) Unpause(ctx context.Context, ref string) error {
	return e.setPaused(ctx, ref, false)
}

func (e *Engine) setPaused(ctx context.Context, ref string, pause bool) error {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	return e.setPausedNow(ctx, c, ref, pause)
}

// setPausedNow is setPaused for one who holds op.
func (e *Engine) setPausedNow(ctx context.Context, c *container, ref string, pause bool) (err error) {
	c.mu.Lock()
	r, status := c.run, c.rec.State.Status
	c.mu.Unlock()
	switch {
	case r == nil && pause:
		return conflict("Container %s is not running", c.id)
	case status == Paused && pause:
		return conflict("Container %s is already paused", ref)
	case status != Paused && !pause:
		return conflict("Container %s is not paused", ref)
	}
	to, action := Running, "unpause"
	if pause {
		to, action = Paused, "pause"
		err = r.shim.Pause(ctx, c.id)
	} else {
		err = r.shim.Resume(ctx, c.id)
	}
	if err != nil && (pause || !shim.IsNotRunning(err)) { // one that goes on already is as wanted
		return fmt.Errorf("Cannot %s container %s: %w", action, ref, err)
	}
	c.mu.Lock()
	if c.run == r {
		c.rec.State.Status = to
	}
	c.mu.Unlock()
	e.emit(c, action)
	return nil
}
