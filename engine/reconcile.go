package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"cale/atomicfile"
	"cale/image"
	"cale/shim"
)

// reconcile brings what is on disk in line with what runs. Whoever was here before may have been killed at any
// instruction, or the machine may have been switched off.
func (e *Engine) reconcile(ctx context.Context) error {
	e.rebooted()
	if err := e.emptyTrash(); err != nil {
		return err
	}
	if err := e.loadPods(); err != nil {
		return err
	}
	if err := e.loadContainers(); err != nil {
		return err
	}
	pods, err := os.ReadDir(filepath.Join(e.cfg.Run, "pods"))
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	newKeeper := len(pods) > 0 && e.needKeeper()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	live := map[string]*run{}
	found := make(chan foundRun, len(pods)+len(e.containers))
	for _, d := range pods {
		if p := e.pods[d.Name()]; p != nil {
			g.Go(func() error {
				e.lookAtPod(gctx, p, found)
				return nil
			})
			continue
		}
		g.Go(func() error {
			found <- e.lookAt(gctx, d.Name())
			return nil
		})
	}
	g.Wait() // lookAt has no errors
	close(found)
	var ended []foundRun
	for f := range found {
		if f.alive {
			live[f.id] = f.run
		} else {
			ended = append(ended, f)
		}
	}
	// Networks first: what lives keeps its addresses, and those of the dead are free before anything starts.
	if err := e.nets.Reconcile(ctx, func(id string) bool { return live[id] != nil || e.pods[id] != nil && e.podAlive(e.pods[id]) }); err != nil {
		e.cfg.Log("networks: %v", err)
	}
	for _, f := range ended {
		e.bury(ctx, f)
	}
	e.reconcilePods(ctx)
	e.resumeAll(ctx, live)
	if newKeeper {
		e.work.Go(e.keepAll)
	}
	return e.dropLeases()
}

// foundRun is what was found below pods.
type foundRun struct {
	id    string
	c     *container // nil when its record is gone
	run   *run
	alive bool
	exit  shim.Exit
}

// emptyTrash finishes removals that were under way, and takes away what was half made.
func (e *Engine) emptyTrash() error {
	for _, dir := range []string{"trash", "volumes"} {
		entries, err := os.ReadDir(filepath.Join(e.cfg.Root, dir))
		if err != nil {
			return fmt.Errorf("engine: %w", err)
		}
		for _, d := range entries {
			path := filepath.Join(e.cfg.Root, dir, d.Name())
			switch {
			case dir == "trash":
				e.burn(path)
			case d.Name()[0] == '.': // a volume that never got its name
				if err := unmount(filepath.Join(path, "_data")); err != nil {
					return fmt.Errorf("engine: %w", err)
				}
				if away, err := e.toTrash(path); err == nil {
					e.burn(away)
				}
			default:
				e.dropFill(path)
			}
		}
	}
	return nil
}

// dropFill removes a copy into a volume that didn't come to its end.
func (e *Engine) dropFill(volume string) {
	names, err := filepath.Glob(filepath.Join(volume, ".fill-*"))
	if err != nil {
		return
	}
	for _, n := range names {
		if away, err := e.toTrash(n); err == nil {
			e.burn(away)
		}
	}
}

// loadContainers reads the records. A directory without one is half made, and goes.
func (e *Engine) loadContainers() error {
	base := filepath.Join(e.cfg.Root, "containers")
	entries, err := os.ReadDir(base)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	for _, d := range entries {
		dir := filepath.Join(base, d.Name())
		raw, err := os.ReadFile(filepath.Join(dir, "container.json"))
		if errors.Is(err, os.ErrNotExist) {
			if err := unmount(filepath.Join(dir, diskMount)); err != nil {
				return fmt.Errorf("container %s: %w", d.Name(), err)
			}
			if away, err := e.toTrash(dir); err == nil {
				e.burn(away)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("container %s: %w", d.Name(), err)
		}
		var rec record
		if err := json.Unmarshal(raw, &rec); err != nil || rec.ID != d.Name() {
			e.cfg.Log("container %s: its record can't be read (%v); it is left as it is", d.Name(), err)
			continue
		}
		if rec.Version != recordVersion {
			e.cfg.Log("container %s: its record has version %d, this program knows %d; it is left as it is", rec.ID, rec.Version, recordVersion)
			continue
		}
		c := e.newContainer(rec)
		if m := rec.Spec.Member; m != nil {
			if c.group = e.pods[m.Pod]; c.group == nil { // its pod went before it did
				if away, err := e.toTrash(dir); err == nil {
					e.burn(away)
				}
				continue
			}
		}
		e.containers[c.id] = c
		if rec.User != nil && len(rec.User.UIDs) > 0 {
			e.ids[c.id] = rec.User.UIDs[0]
		}
		if err := c.mountDisk(); err != nil {
			e.cfg.Log("container %s: %v", c.id, err)
		}
		if other := e.names[rec.Name]; other != "" {
			// Only a crash between two renames makes this: the later one wins nothing.
			c.rec.Name = rec.Name + "_" + c.id[:12]
		}
		e.names[c.rec.Name] = c.id
		for _, m := range rec.Mounts {
			if m.Type == "volume" {
				e.volumes.hold(m.Source, c.id)
			}
		}
	}
	return nil
}

// lookAt asks what became of one pod.
func (e *Engine) lookAt(ctx context.Context, id string) foundRun {
	f := foundRun{id: id, c: e.containers[id]}
	pod := filepath.Join(e.cfg.Run, "pods", id)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client, err := e.supervisorOf(ctx, f.c, id, pod)
	if err != nil {
		e.cfg.Log("container %s: its shim does not answer: %v", id, err)
		if f.exit, err = shim.ReadExit(pod, id); err != nil {
			f.exit = shim.Exit{Status: 137, At: time.Now()}
		}
		return f
	}
	return e.lookThrough(ctx, client, pod, f)
}

// supervisorOf finds who supervises a container. One whose record is gone is not taken over: it is to end.
func (e *Engine) supervisorOf(ctx context.Context, c *container, id, pod string) (*shim.Client, error) {
	if c == nil {
		return shim.Connect(ctx, pod)
	}
	// Its runtime's name may mean nothing any more, which is no reason to end it.
	return e.findSupervisor(ctx, supervisor{e.cfg.Shim, id, pod})
}

// lookThrough asks a shim about one container; pod is its bundle.
func (e *Engine) lookThrough(ctx context.Context, client *shim.Client, pod string, f foundRun) foundRun {
	id := f.id
	f.run = &run{shim: client, done: make(chan struct{})}
	if _, err := os.Lstat(filepath.Join(pod, "net")); err == nil {
		f.run.netns = filepath.Join(pod, "net")
	}
	st, err := client.State(ctx, id, "")
	// A shim that has just taken over may not have seen yet that the process died with its last one.
	for try := 0; try < 100 && err == nil && st.Status == shim.StatusRunning && processEnded(int(st.Pid)); try++ {
		time.Sleep(20 * time.Millisecond)
		st, err = client.State(ctx, id, "")
	}
	if still := filepath.Join(pod, stillMark); err == nil && isFile(still) {
		if st.Status == shim.StatusPaused || st.Status == shim.StatusPausing {
			if err := client.Resume(ctx, id); err != nil {
				e.cfg.Log("container %s: it was frozen for an engine that died, and can't go on: %v", id, err)
			} else {
				st.Status = shim.StatusRunning
			}
		}
		if err := os.Remove(still); err != nil {
			e.cfg.Log("container %s: %v", id, err)
		}
	}
	switch {
	case err != nil:
		if f.exit, err = shim.ReadExit(pod, id); err != nil {
			f.exit = shim.Exit{Status: 137, At: time.Now()}
		}
	case f.c != nil && (st.Status == shim.StatusRunning || st.Status == shim.StatusPaused || st.Status == shim.StatusPausing):
		f.alive = true
		f.run.pid = int(st.Pid)
		f.c.rec.State.Pid = int(st.Pid)
		f.c.rec.State.Status = Running
		if st.Status != shim.StatusRunning {
			f.c.rec.State.Status = Paused
		}
		f.c.rec.Started = true
		f.run.started = f.c.rec.State.StartedAt
		if f.run.started.IsZero() {
			// An AutoRemove container's start isn't written down: the bundle tells.
			if info, err := os.Stat(filepath.Join(pod, "config.json")); err == nil {
				f.run.started = info.ModTime()
			}
			f.c.rec.State.StartedAt = f.run.started
		}
	default:
		f.exit = shim.Exit{Status: st.ExitStatus, At: st.ExitedAt}
		if kept, err := shim.ReadExit(pod, id); err == nil {
			f.exit = kept
		}
		if st.Status == shim.StatusCreated || st.Status == shim.StatusUnknown {
			f.exit = shim.Exit{Status: 128} // made, never started
		}
	}
	return f
}

// processEnded says whether a process has ended, though it may be waited for yet.
func processEnded(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	defer unix.Close(fd)
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}

// bury cleans up after a run that ended, or never really began, while nobody looked.
func (e *Engine) bury(ctx context.Context, f foundRun) {
	c := f.c
	known := c != nil
	if !known {
		c = e.newContainer(record{ID: f.id})
	}
	e.unwind(ctx, c, f.run)
	e.endShim(ctx, c, f.run)
	e.killLeft(c)
	e.clearPod(ctx, c, f.run)
	if !known {
		return
	}
	st := &c.rec.State
	if st.Status == Running || st.Status == Paused || c.rec.Started || c.rec.Spec.AutoRemove {
		st.Status, st.ExitCode, st.FinishedAt, st.Pid, st.OOMKilled = Exited, int(f.exit.Status), f.exit.At, 0, c.ranOutOfMemory(f.exit)
		if f.exit.Unknown {
			st.Error = exitUnknown
		}
		if st.FinishedAt.IsZero() {
			st.FinishedAt = time.Now()
		}
	}
}

// resumeAll takes up every container: those that run are followed, of the others some are removed, some started.
func (e *Engine) resumeAll(ctx context.Context, live map[string]*run) {
	for _, c := range e.all() {
		if r := live[c.id]; r != nil {
			c.run = r
			if s := &c.rec.Spec; s.CgroupParent != "" {
				e.parents.keep(c.id, e.cgroupParent(s))
			}
			if c.group == nil { // an engine may have died over an alteration that it had written down
				if err := e.nets.Republish(ctx, c.id, e.publish(&c.rec)); err != nil {
					e.cfg.Log("container %s: %v", c.id, err)
				}
			}
			e.follow(c, r)
			e.resumeSessions(ctx, c, r)
			continue
		}
		st := &c.rec.State
		was := st.Status
		switch was {
		case Running, Paused:
			// The machine was restarted: there isn't even a bundle.
			st.Status, st.ExitCode, st.Pid = Exited, 255, 0
			if st.FinishedAt.Before(st.StartedAt) {
				st.FinishedAt = time.Now()
			}
		case Restarting, Removing:
			st.Status = Exited
		}
		c.mu.Lock()
		if err := c.save(false); err != nil {
			e.cfg.Log("%v", err)
		}
		c.mu.Unlock()
		switch policy := c.rec.Spec.Restart.Name; {
		case c.rec.Spec.AutoRemove && (was != Created || c.rec.Started || e.rebooted()):
			if err := e.removeNow(c, RemoveOptions{Volumes: true}); err != nil {
				e.cfg.Log("remove container %s: %v", c.id, err)
			}
		case !c.rec.Started || c.rec.Stopped && policy != "always":
		case policy == "always", policy == "unless-stopped", policy == "on-failure" && st.ExitCode != 0:
			// One stopped by its user comes back with "always" after a reboot only, as in Docker.
			if c.rec.Stopped && was == Exited && !e.rebooted() {
				continue
			}
			e.planRestart(c, 0)
		}
	}
	e.parents.sweep()
}

// rebooted says whether the machine was restarted since an engine last ran here, and remembers that one does now: the
// boot's id in Run is another, or Run was emptied.
func (e *Engine) rebooted() bool {
	e.bootOnce.Do(func() {
		path := filepath.Join(e.cfg.Run, "boot")
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return
		}
		old, err := os.ReadFile(path)
		e.fresh = err != nil || string(old) != string(id)
		if e.fresh {
			if err := atomicfile.Write(path, id, 0o600, false); err != nil {
				e.cfg.Log("%v", err)
			}
		}
	})
	return e.fresh
}

// dropLeases renews the leases of the containers that are here, and ends those of others.
func (e *Engine) dropLeases() error {
	leases := e.store.Leases()
	for _, c := range e.all() {
		id, err := image.ParseDigest(c.rec.ImageID)
		if err != nil {
			continue
		}
		if _, ok := leases[c.id]; !ok {
			if err := e.store.AddLease(c.id, c.rec.Manifest, id); err != nil {
				return err
			}
		}
	}
	for id := range leases {
		if e.containers[id] == nil && len(id) == 64 {
			if err := e.store.RemoveLease(id); err != nil {
				return err
			}
		}
	}
	return nil
}
