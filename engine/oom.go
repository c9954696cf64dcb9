package engine

import (
	"context"

	"cale/runtime/cgroup"
)

// memoryWatch tells when a container runs out of memory, which need not end it: it may be another of its processes that
// the kernel kills, or killing may be forbidden.
type memoryWatch struct {
	stop func()
	done chan struct{}
	told bool // read when done is closed
}

// watchMemory begins to watch a container that has a limit. It does nothing for one that is watched. Who has c.run to
// itself calls it: at the start, or with c.op held.
func (e *Engine) watchMemory(c *container, r *run) {
	c.mu.Lock()
	limited := c.rec.Spec.Resources.Memory > 0
	c.mu.Unlock()
	if r.memory != nil || c.group != nil || !limited {
		return
	}
	g, err := cgroup.Open(e.cgroupOf(c), cgroup.Options{})
	if err != nil {
		e.cfg.Log("container %s: %v", c.id, err)
		return
	}
	events, stop, err := g.WatchOOM()
	if err != nil {
		return // no such controller: its end will tell
	}
	w := &memoryWatch{stop: stop, done: make(chan struct{})}
	r.memory = w
	forget := context.AfterFunc(e.ctx, stop)
	go func() {
		defer close(w.done)
		defer forget()
		for range events {
			w.told = true
			e.emit(c, "oom")
		}
	}()
}

// end ends the watch, and says whether it has told of anything.
func (w *memoryWatch) end() (told bool) {
	if w == nil {
		return false
	}
	w.stop()
	<-w.done
	return w.told
}
