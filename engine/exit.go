package engine

import (
	"context"
	"strconv"
	"time"

	"cale/shim"
)

const (
	firstBackoff = 100 * time.Millisecond
	mostBackoff  = time.Minute
	longRun      = 10 * time.Second // a run this long starts the backoff anew
)

// pendingRestart is a restart the policy has planned.
type pendingRestart struct{ cancel context.CancelFunc }

// cancelRestart gives up a planned restart. c.mu is held. It reports whether there was one.
func (c *container) cancelRestart() bool {
	if c.restart == nil {
		return false
	}
	c.restart.cancel()
	c.restart = nil
	if c.rec.State.Status == Restarting {
		c.rec.State.Status = Exited
	}
	return true
}

// follow waits for the end of a run, in a goroutine of its own.
func (e *Engine) follow(c *container, r *run) {
	ctx, stop := context.WithCancel(e.ctx)
	r.stop = stop
	e.startHealth(ctx, c, r)
	e.watchMemory(c, r)
	e.work.Add(1)
	go func() {
		defer e.work.Done()
		exit, err := r.shim.Wait(e.ctx, c.id, "")
		if e.ctx.Err() != nil {
			return // the next engine goes on from here
		}
		if err != nil {
			exit = e.lostShim(c, err)
		}
		stop()
		e.exited(c, r, exit)
	}()
}

// lostShim finds out what became of a container whose shim doesn't answer any more. Nothing of it may be left.
func (e *Engine) lostShim(c *container, cause error) shim.Exit {
	exit, err := shim.ReadExit(c.pod, c.id)
	if err != nil {
		e.cfg.Log("container %s: its shim is gone: %v", c.id, cause)
		exit = shim.Exit{Status: 137, At: time.Now()}
	}
	e.killLeft(c)
	return exit
}

// exited settles the end of a run: first what others could trip over (addresses, ports, the runtime's state), then
// everybody is told, then the rest.
func (e *Engine) exited(c *container, r *run, exit shim.Exit) {
	defer e.begin()()
	ctx := context.WithoutCancel(e.ctx)
	c.op.lock(ctx)
	defer c.op.unlock()
	kept := c.keptExit(exit)
	oom := c.ranOutOfMemory(kept)
	told := r.memory.end()
	e.unwind(ctx, c, r)

	c.mu.Lock()
	ran := exit.At.Sub(r.started)
	st := &c.rec.State
	st.Status, st.Pid, st.ExitCode, st.FinishedAt, st.OOMKilled = Exited, 0, int(exit.Status), exit.At, oom
	if st.FinishedAt.IsZero() {
		st.FinishedAt = time.Now()
	}
	if kept.Unknown {
		st.Error = exitUnknown
	}
	if r.health != nil {
		st.Health = r.health.state()
	}
	c.run = nil
	wait, again := c.restartAfter(ran)
	if again {
		st.Status = Restarting
	}
	if c.keep() {
		if err := c.save(false); err != nil {
			e.cfg.Log("%v", err)
		}
	}
	exits := c.exits
	c.exits = nil
	result := WaitResult{ExitCode: st.ExitCode}
	remove := c.rec.Spec.AutoRemove && !c.holdRemoval
	restarting := again || c.holdRemoval
	c.mu.Unlock()

	if oom && !told {
		e.emit(c, "oom")
	}
	e.emitVolumes(c, "unmount")
	attrs := []string{"exitCode", strconv.Itoa(result.ExitCode), "execDuration", strconv.Itoa(max(0, int(ran.Seconds())))}
	if restarting {
		attrs = append(attrs, "restarting", "true")
	}
	e.emit(c, "die", attrs...)
	close(r.done)
	for _, ch := range exits {
		ch <- result
	}
	e.endSessions(c)
	if remove {
		// The record goes before the pod: a pod without a record is cleared away by the next engine, but a record
		// without a pod would look as if it never ran.
		if err := e.removeNow(c, RemoveOptions{Volumes: true}); err != nil {
			e.cfg.Log("remove container %s: %v", c.id, err)
		}
	}
	e.clearPod(ctx, c, r)
	if again {
		e.planRestart(c, wait)
	}
	e.maybeIdle()
}

// exitUnknown is the error of a container that ended while nobody was there to see how.
const exitUnknown = "exit code unknown: the container's supervisor died before it did, and this kernel tells it to nobody else"

// keptExit asks what the shim wrote down: only that tells whether memory ran out. A clean end isn't worth asking.
func (c *container) keptExit(exit shim.Exit) shim.Exit {
	if exit.Status == 0 {
		return exit
	}
	kept, err := shim.ReadExit(c.pod, c.id)
	if err != nil {
		return exit
	}
	return kept
}

// ranOutOfMemory says whether want of memory is the reason for an end. With Docker it is if any process was killed for
// it, with Kubernetes only if the container's first one was (or all were at once).
func (c *container) ranOutOfMemory(exit shim.Exit) bool {
	if c.group == nil || !exit.OOMKilled {
		return exit.OOMKilled
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return exit.Status == 137 && !c.rec.Stopped
}

// restartAfter decides by the policy. c.mu is held.
func (c *container) restartAfter(ran time.Duration) (wait time.Duration, again bool) {
	p := c.rec.Spec.Restart
	if c.rec.Stopped || c.removing {
		return 0, false
	}
	switch p.Name {
	case "always", "unless-stopped":
	case "on-failure":
		if c.rec.State.ExitCode == 0 || p.Retries > 0 && c.rec.Restarts >= p.Retries {
			return 0, false
		}
	default:
		return 0, false
	}
	if c.backoff == 0 || ran > longRun {
		c.backoff = firstBackoff
	} else {
		c.backoff = min(2*c.backoff, mostBackoff)
	}
	return c.backoff, true
}

// planRestart starts the container after a while, unless somebody takes the plan back.
func (e *Engine) planRestart(c *container, wait time.Duration) {
	ctx, cancel := context.WithCancel(e.ctx)
	plan := &pendingRestart{cancel: cancel}
	c.mu.Lock()
	c.restart = plan
	c.mu.Unlock()
	e.work.Add(1)
	go func() {
		defer e.work.Done()
		defer cancel()
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if c.op.lock(ctx) != nil {
			return
		}
		defer c.op.unlock()
		c.mu.Lock()
		if c.restart != plan {
			c.mu.Unlock()
			return
		}
		c.restart = nil
		c.rec.Restarts++
		c.mu.Unlock()
		if err := e.start(e.ctx, c, "", true); err != nil {
			// As Docker: what can't be started (a port in use) isn't tried for ever (moby#49501).
			e.cfg.Log("restart container %s: %v", c.id, err)
			c.mu.Lock()
			if c.run == nil {
				c.rec.State.Status = Exited
			}
			c.mu.Unlock()
			e.maybeIdle()
		}
	}()
}

// Wait tells when a container reaches a condition: not-running (or ""), next-exit, removed. It is registered when
// Wait returns; the channel then gets one result, and is forgotten when ctx ends.
func (e *Engine) Wait(ctx context.Context, ref, condition string) (<-chan WaitResult, error) {
	c, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	ch := make(chan WaitResult, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	var list *[]chan WaitResult
	switch condition {
	case "", "not-running":
		if c.run == nil && c.rec.State.Status != Restarting {
			ch <- WaitResult{ExitCode: c.rec.State.ExitCode, Err: c.rec.State.Error}
			return ch, nil
		}
		list = &c.exits
	case "next-exit":
		list = &c.exits
	case "removed":
		list = &c.removals
	default:
		return nil, invalid("invalid condition: %q", condition)
	}
	*list = append(*list, ch)
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, other := range *list {
			if other == ch {
				*list = append((*list)[:i:i], (*list)[i+1:]...)
				return
			}
		}
	})
	return ch, nil
}
