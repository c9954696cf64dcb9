package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Remove removes a container, with force also a running one.
func (e *Engine) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	for {
		c.mu.Lock()
		if c.removing {
			c.mu.Unlock()
			return conflict("removal of container %s is already in progress", ref)
		}
		r, status, name := c.run, c.rec.State.Status, c.rec.Name
		switch {
		case (r != nil || c.restart != nil) && !o.Force:
			c.mu.Unlock()
			if status == Paused {
				return conflict("cannot remove container %q: container is paused and must be unpaused first", "/"+name)
			}
			return conflict("cannot remove container %q: container is %s: stop the container before removing or force remove", "/"+name, status)
		case r != nil || c.restart != nil:
			c.rec.Stopped = true
			c.cancelRestart()
		}
		auto := c.rec.Spec.AutoRemove
		c.mu.Unlock()
		if r != nil {
			if err := e.killRun(context.WithoutCancel(ctx), c, r); err != nil {
				return fmt.Errorf("cannot remove container %q: could not kill container: %w", "/"+name, err)
			}
		}
		if err := c.op.lock(ctx); err != nil {
			return err
		}
		c.mu.Lock()
		again := c.run != nil || c.restart != nil
		c.mu.Unlock()
		if again { // somebody was quicker and started it anew
			c.op.unlock()
			continue
		}
		err := e.removeNow(c, o)
		c.op.unlock()
		if auto && errors.Is(err, ErrNotFound) {
			return nil // its own end removed it
		}
		return err
	}
}

// removeNow removes a container that doesn't run; op is held. The container is gone when this returns, though its
// files may still be on their way out.
func (e *Engine) removeNow(c *container, o RemoveOptions) error {
	c.mu.Lock()
	if c.removing {
		c.mu.Unlock()
		return notFound("No such container: %s", c.id)
	}
	c.removing = true
	was := c.rec.State.Status
	c.rec.State.Status = Removing
	c.mu.Unlock()
	err := c.dropDisk()
	away := ""
	if err == nil {
		away, err = e.toTrash(c.dir)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.mu.Lock()
		c.removing = false
		c.rec.State.Status = was
		if err := c.mountDisk(); err != nil {
			e.cfg.Log("container %s: %v", c.id, err)
		}
		c.mu.Unlock()
		return fmt.Errorf("remove container %s: %w", c.id, err)
	}
	c.mu.Lock()
	name, mounts := c.rec.Name, c.rec.Mounts
	removals, exits := c.removals, c.exits
	c.removals, c.exits = nil, nil
	pending := c.takePending()
	result := WaitResult{ExitCode: c.rec.State.ExitCode}
	c.mu.Unlock()

	e.mu.Lock()
	delete(e.containers, c.id)
	if e.names[name] == c.id {
		delete(e.names, name)
	}
	for id, s := range e.execs {
		if s.c == c {
			delete(e.execs, id)
		}
	}
	delete(e.ids, c.id)
	e.mu.Unlock()
	if err := e.store.RemoveLease(c.id); err != nil {
		e.cfg.Log("container %s: %v", c.id, err)
	}
	e.volumes.release(c.id)
	if o.Volumes {
		for _, m := range mounts {
			if m.Type == "volume" && m.Anonymous {
				if err := e.VolumeRemove(context.Background(), m.Source, true); err != nil && !errors.Is(err, ErrConflict) {
					e.cfg.Log("container %s: %v", c.id, err)
				}
			}
		}
	}
	e.emit(c, "destroy")
	for _, p := range pending {
		p.fail()
	}
	for _, ch := range append(removals, exits...) {
		ch <- result
	}
	e.burn(away)
	return nil
}

// PruneContainers removes the stopped containers that match says true for (nil: all).
func (e *Engine) PruneContainers(ctx context.Context, match func(Info) bool) (Pruned, error) {
	defer e.begin()()
	var p Pruned
	for _, c := range e.all() {
		if ctx.Err() != nil {
			return p, ctx.Err()
		}
		if c.group != nil {
			continue // what a pod has is for its client to remove
		}
		c.mu.Lock()
		working := c.rec.Working != nil
		c.mu.Unlock()
		if working {
			continue // it does nothing most of the time, and is not done with
		}
		info := e.info(c)
		switch info.State.Status {
		case Created, Exited, Dead:
		default:
			continue
		}
		if match != nil && !match(info) {
			continue
		}
		size := treeSize(c.upper())
		switch err := e.Remove(ctx, c.id, RemoveOptions{}); {
		case errors.Is(err, ErrConflict), errors.Is(err, ErrNotFound): // started or removed meanwhile
		case err != nil:
			return p, err
		default:
			p.IDs = append(p.IDs, c.id)
			p.Bytes += size
		}
	}
	e.emitOther("container", "prune", "", "reclaimed", fmt.Sprint(p.Bytes))
	return p, nil
}
