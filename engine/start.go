package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"cale/logfile"
	"cale/network"
	"cale/runtime/cgroup"
	"cale/shim"
	"cale/shim/stdio"
)

const (
	startTimeout = 2 * time.Minute
	shimGrace    = 10 * time.Second // for a shim to end when asked to
)

// Start starts a created or stopped container.
func (e *Engine) Start(ctx context.Context, ref string, o StartOptions) error {
	defer e.begin()()
	if o.Checkpoint != "" {
		if err := checkCheckpointName(o.Checkpoint); err != nil {
			return err
		}
	}
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	c.mu.Lock()
	if o.Checkpoint == "" && c.rec.Snapshot && !c.rec.Started {
		o = StartOptions{Checkpoint: snapshotName}
	}
	c.mu.Unlock()
	checkpoint := ""
	if o.Checkpoint != "" {
		if checkpoint, err = c.findCheckpoint(o.Checkpoint, o.CheckpointDir); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.cancelRestart()
	c.mu.Unlock()
	return e.start(ctx, c, checkpoint, false)
}

// start starts a container whose op lock is held: anew, or of the checkpoint at a path. again is true for the restart
// policy's doing.
func (e *Engine) start(ctx context.Context, c *container, checkpoint string, again bool) error {
	c.mu.Lock()
	switch {
	case c.removing:
		c.mu.Unlock()
		return conflict("container is marked for removal and cannot be started")
	case c.run != nil && c.rec.State.Status == Paused:
		c.mu.Unlock()
		return conflict("cannot start a paused container, try unpause instead")
	case c.run != nil:
		c.mu.Unlock()
		return fail(ErrNotModified, "container %s is already running", c.id)
	}
	if !again {
		c.rec.Stopped = false
		c.rec.Restarts = 0
		c.backoff = 0
	}
	rec := c.rec // the spec in it isn't changed while op is held
	e.volumes.settle(c.id, rec.Mounts)
	c.mu.Unlock()

	// A client that goes away doesn't stop a start half way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	r := &run{done: make(chan struct{}), checkpoint: checkpoint}
	if err := e.launch(ctx, c, &rec, r); err != nil {
		e.unwind(ctx, c, r)
		e.endShim(ctx, c, r)
		e.clearPod(ctx, c, r)
		e.startFailed(c, err)
		return err
	}
	c.mu.Lock()
	st := &c.rec.State
	*st = State{Status: Running, Pid: r.pid, StartedAt: r.started, User: r.user}
	c.rec.Started = true
	c.run = r
	if c.keep() {
		policy := c.rec.Spec.Restart.Name
		if err := c.save(policy != "" && policy != "no"); err != nil {
			e.cfg.Log("%v", err)
		}
	}
	c.mu.Unlock()
	e.emitVolumes(c, "mount")
	e.emit(c, "start")
	e.tellLinked(c)
	e.follow(c, r)
	return nil
}

// launch makes everything a run needs and lets the process go. What it made is taken away by unwind.
func (e *Engine) launch(ctx context.Context, c *container, rec *record, r *run) error {
	s := &rec.Spec
	target, err := e.runtimeFor(s.Runtime)
	if err != nil {
		return err
	}
	// The directory says whose all the rest is, so it is first.
	if err := os.Mkdir(c.pod, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("container %s: %w", c.id, err)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		if c.group != nil {
			r.shim, err = e.shimOf(ctx, c.group, target.shim)
			return err
		}
		r.shim, err = e.startSupervisor(gctx, supervisor{target.shim, c.id, c.pod})
		if err != nil {
			return fmt.Errorf("start shim of container %s: %w", c.id, err)
		}
		return nil
	})
	if err := e.prepareEtc(c, rec); err != nil {
		g.Wait()
		return err
	}
	netns, attach, err := e.prepareNetwork(c, rec, r)
	if err != nil {
		g.Wait()
		return err
	}
	networked := make(chan error, 1)
	if attach {
		go func() { networked <- e.attachNetworks(ctx, c, rec, netns) }()
	} else {
		networked <- e.writeEtc(c, rec, nil)
	}
	join := func() error { // the network's goroutine must not outlive this function
		err := <-networked
		networked <- err
		return err
	}
	r.joined = netns
	defer func() {
		for _, f := range r.held {
			f.Close()
		}
		r.held = nil
	}()
	g.Go(func() error { return e.writeBundle(gctx, c, rec, r) })
	if err := g.Wait(); err != nil {
		join()
		return err
	}
	if s.CgroupParent != "" {
		if err := e.parents.take(c.id, e.cgroupParent(s)); err != nil {
			join()
			return err
		}
	}
	request := shim.CreateRequest{ID: c.id, Bundle: c.pod, Terminal: s.TTY, Runtime: target.oci, Checkpoint: r.checkpoint}
	if request.Rootfs, err = e.rootfs(c, rec); err != nil {
		join()
		return err
	}
	if err := e.stdioOf(c, rec, &request); err != nil {
		join()
		return err
	}
	pid, err := r.shim.Create(ctx, request)
	// A port that is taken is a better answer than what comes of it.
	if err2 := join(); err2 != nil {
		return err2
	}
	if err != nil {
		return startError(err)
	}
	e.admit(ctx, c, r)
	restored, err := r.shim.Start(ctx, c.id, "")
	if err != nil {
		return startError(err)
	}
	if r.checkpoint != "" {
		pid = restored // there was none before
	}
	r.pid = int(pid)
	r.started = time.Now()
	return nil
}

// writeBundle writes config.json and what it refers to below the bundle.
func (e *Engine) writeBundle(ctx context.Context, c *container, rec *record, r *run) error {
	if rec.Spec.IpcMode == "shareable" {
		if err := mountShm(filepath.Join(c.pod, "shm"), rec.Spec.ShmSize, c.idMap()); err != nil {
			return err
		}
	}
	spec, err := e.ociSpec(ctx, c, rec, r)
	if err != nil {
		return err
	}
	r.user = &spec.Process.User
	raw, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("container %s: %w", c.id, err)
	}
	return os.WriteFile(filepath.Join(c.pod, "config.json"), raw, 0o600)
}

// rootfs describes the overlay of the image's layers and the container's own directory.
func (e *Engine) rootfs(c *container, rec *record) ([]shim.Mount, error) {
	dirs, err := e.lowers(rec)
	if err != nil {
		return nil, err
	}
	options := append(overlayOptions(dirs, c.upper(), c.work()), c.idMap().rootOptions()...)
	return []shim.Mount{{Type: "overlay", Source: "overlay", Options: options}}, nil
}

// overlayOptions writes the options as mount(8) takes them; colons and backslashes in names are escaped.
func overlayOptions(lowers []string, upper, work string) []string {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	escaped := make([]string, len(lowers))
	for i, d := range lowers {
		escaped[i] = escape.Replace(d)
	}
	return []string{"lowerdir=" + strings.Join(escaped, ":"), "upperdir=" + upper, "workdir=" + work}
}

// stdioOf says where output goes: the shim writes the log and serves who attaches.
func (e *Engine) stdioOf(c *container, rec *record, r *shim.CreateRequest) error {
	s := &rec.Spec
	size, files, err := logLimits(s.Log)
	if err != nil {
		return err
	}
	u := stdio.URI{Log: c.logPath(), Driver: "json-file", MaxSize: size, MaxFile: files, Attach: c.attachSocket(),
		Stdin: s.OpenStdin, StdinOnce: s.StdinOnce, Attrs: logAttrs(rec)}
	if s.Log.Driver == "journald" {
		u.Journal, u.Fields = logfile.JournalSocket, journalFields(rec)
	}
	if s.Log.Driver == "none" {
		u.Log, u.Driver = "", "none"
	}
	if c.group != nil {
		u = memberStdio(c, s)
	}
	text := u.String()
	r.Stdout = text
	if s.OpenStdin {
		r.Stdin = text
	}
	if !s.TTY {
		r.Stderr = text
	}
	return nil
}

// mountShm makes the shared memory of containers, size bytes large. Its owner is root, of the mapping if there is one.
func mountShm(path string, size int64, ids *IDMap) error {
	if size == 0 {
		size = defaultShm
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	options := fmt.Sprintf("mode=1777,size=%d", size)
	if ids != nil {
		uid, gid := ids.root()
		options += fmt.Sprintf(",uid=%d,gid=%d", uid, gid)
	}
	if err := unix.Mount("shm", path, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}

// startError words a failed start as Docker does, since scripts look for these words.
func startError(err error) error {
	text := "failed to create task for container: failed to create shim task: OCI runtime create failed: " + err.Error()
	class := error(nil)
	if shim.IsCommandNotFound(err) || shim.IsCommandNotExecutable(err) {
		class = ErrInvalid
	}
	return &Error{Class: class, Text: text, Cause: err}
}

// exitCodeOf is the code of a container that could not be started.
func exitCodeOf(err error) int {
	switch {
	case shim.IsCommandNotFound(err):
		return 127
	case shim.IsCommandNotExecutable(err):
		return 126
	}
	return 128
}

// startFailed records why a container didn't start.
func (e *Engine) startFailed(c *container, err error) {
	c.mu.Lock()
	st := &c.rec.State
	st.Error, st.ExitCode, st.Pid = err.Error(), exitCodeOf(err), 0
	if c.rec.Started {
		st.Status, st.FinishedAt = Exited, time.Now()
	}
	if err := c.save(false); err != nil {
		e.cfg.Log("%v", err)
	}
	remove := c.rec.Spec.AutoRemove
	pending := c.takePending()
	code, text := st.ExitCode, st.Error
	exits := c.exits
	c.exits = nil
	c.mu.Unlock()
	for _, p := range pending {
		p.fail()
	}
	for _, ch := range exits {
		ch <- WaitResult{ExitCode: code, Err: text}
	}
	if remove {
		if err := e.removeNow(c, RemoveOptions{Volumes: true}); err != nil {
			e.cfg.Log("remove container %s: %v", c.id, err)
		}
	}
}

// unwind takes away all that a run has, whatever part of it there is. It is also how an ended run is cleaned up.
func (e *Engine) unwind(ctx context.Context, c *container, r *run) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	netDone := make(chan struct{})
	go func() {
		defer close(netDone)
		e.dropNetwork(ctx, c)
	}()
	if r != nil && r.shim != nil {
		if _, err := r.shim.Delete(ctx, c.id, ""); err != nil && !shim.IsNotFound(err) && !shim.IsUnavailable(err) {
			// Still running, or half made: end it by force.
			r.shim.Kill(ctx, c.id, "", uint32(unix.SIGKILL), true)
			if _, err := r.shim.Delete(ctx, c.id, ""); err != nil && !shim.IsNotFound(err) && !shim.IsUnavailable(err) {
				e.cfg.Log("container %s: delete: %v", c.id, err)
			}
		}
	}
	<-netDone
	e.parents.drop(c.id)
}

// clearPod ends the shim and removes the bundle. The directory goes last: it is what says that there was a run.
func (e *Engine) clearPod(ctx context.Context, c *container, r *run) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	if r != nil && r.shim != nil && c.group == nil {
		if err := r.shim.Shutdown(ctx); err != nil && !shim.IsUnavailable(err) {
			e.cfg.Log("container %s: shim: %v", c.id, err)
		}
		r.shim.Close()
	}
	if c.group == nil {
		e.letGo(c.id)
	}
	// A foreign runtime's root is mounted by the shim, which may have died over it.
	names := []string{"shm", "rootfs", shim.BehindRoot(c.id)}
	if pins, err := os.ReadDir(filepath.Join(c.pod, subpaths)); err == nil {
		for _, p := range pins {
			names = append(names, filepath.Join(subpaths, p.Name()))
		}
	}
	for _, name := range names {
		if err := unmount(filepath.Join(c.pod, name)); err != nil {
			e.cfg.Log("unmount %s of container %s: %v", name, c.id, err)
		}
	}
	for _, name := range []string{"uts", "ipc", "pid", "user"} { // its own, or of a pod whose record is gone
		if err := unmountPin(filepath.Join(c.pod, name)); err != nil {
			e.cfg.Log("container %s: %v", c.id, err)
		}
	}
	if err := network.RemoveNamespace(filepath.Join(c.pod, "net")); err != nil {
		e.cfg.Log("container %s: %v", c.id, err)
	}
	if err := removeTree(c.pod); err != nil {
		e.cfg.Log("container %s: %v", c.id, err)
	}
}

// unmount takes all mounts off a path, if it is there.
func unmount(path string) error {
	for range 64 {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// endShim makes sure that nothing of a run that went wrong is left, the shim included: it may still be busy with a
// request whose client is gone, and make a container after it was asked what it has.
func (e *Engine) endShim(ctx context.Context, c *container, r *run) {
	if r == nil || r.shim == nil || c.group != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shimGrace)
	defer cancel()
	pid, err := r.shim.Pid(ctx)
	if err != nil || pid <= 1 {
		return // it is gone, or was never there
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	for ctx.Err() == nil {
		e.unwind(ctx, c, r)
		if err := r.shim.Shutdown(ctx); shim.IsUnavailable(err) {
			return
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 50); err == nil && n > 0 {
			return
		}
	}
	e.cfg.Log("container %s: its shim %d does not end and is killed", c.id, pid)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		e.cfg.Log("container %s: kill shim: %v", c.id, err)
	}
	e.killLeft(c)
}

// killLeft ends whatever is left of a container whose shim is gone, another shim behind that one too, and removes its
// cgroup.
func (e *Engine) killLeft(c *container) {
	if _, err := os.Lstat(filepath.Join(c.pod, shim.BehindBundle(c.id))); err == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), startTimeout)
		defer cancel()
		if _, err := shim.Cleanup(ctx, e.launchOf(supervisor{e.cfg.Shim, c.id, c.pod})); err != nil {
			e.cfg.Log("container %s: what its runtime left: %v", c.id, err)
		}
	}
	c.mu.Lock()
	path := filepath.Join(e.cgroupParent(&c.rec.Spec), c.id)
	c.mu.Unlock()
	if err := destroyCgroup(path); err != nil {
		e.cfg.Log("container %s: %v", c.id, err)
	}
}

func destroyCgroup(path string) error {
	g, err := cgroup.Open(path, cgroup.Options{})
	if err != nil || !g.Exists() {
		return err
	}
	if err := g.Kill(); err != nil {
		return err
	}
	return g.Destroy()
}
