package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/shim"
)

// withTree calls fn with a container's files as the container sees them, its volumes included, and writable. While
// fn works on a stopped container nobody can start it.
func (e *Engine) withTree(ctx context.Context, c *container, fn func(*filetree.Root) error) error {
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	unlock := func() { c.op.unlock() }
	c.mu.Lock()
	r, rec, removing := c.run, c.rec, c.removing
	c.mu.Unlock()
	if removing {
		unlock()
		return notFound("No such container: %s", c.id)
	}
	if r != nil {
		root, err := e.runningRoot(ctx, c, r)
		unlock()
		if err != nil {
			return err
		}
		defer root.Close()
		return fn(root)
	}
	defer unlock()
	dirs, err := e.lowers(&rec)
	if err != nil {
		return err
	}
	own := slices.ContainsFunc(rec.Mounts, func(m Mount) bool { return m.Type != "tmpfs" })
	if !own && !rec.Started && rec.Run.WorkingDir == "" {
		root, err := openWritable(dirs, c.upper(), c.dir+"/work")
		if err == nil {
			defer root.Close()
			return fn(root)
		}
	}
	return e.withMounts(c, &rec, dirs, fn)
}

// runningRoot opens the root of a run's process. The shim says afterwards whether the process still runs: otherwise
// its number, and with it the root, may have been another process's.
func (e *Engine) runningRoot(ctx context.Context, c *container, r *run) (*filetree.Root, error) {
	gone := conflict("container %s is not running", c.id)
	root, err := processRoot(r.pid)
	if err != nil {
		return nil, gone
	}
	st, err := r.shim.State(ctx, c.id, "")
	if err != nil || int(st.Pid) != r.pid || st.Status == shim.StatusStopped {
		root.Close()
		return nil, gone
	}
	return root, nil
}

// withMounts mounts a stopped container's files and volumes in a mount namespace of one thread, which ends with fn:
// nothing of it shows on the host or in another container.
func (e *Engine) withMounts(c *container, rec *record, dirs []string, fn func(*filetree.Root) error) error {
	at, err := os.MkdirTemp(e.cfg.Run, "tree-")
	if err != nil {
		return err
	}
	defer os.Remove(at)
	type result struct {
		root *filetree.Root
		err  error
	}
	mounted, done := make(chan result), make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// The thread is never unlocked: it dies with this goroutine, and its mount namespace with it.
		runtime.LockOSThread()
		root, err := e.mountTree(c, rec, dirs, at)
		mounted <- result{root, err}
		<-done
	}()
	res := <-mounted
	if res.err == nil {
		res.err = fn(res.root)
		res.root.Close()
	}
	close(done)
	<-ended
	return res.err
}

func (e *Engine) mountTree(c *container, rec *record, dirs []string, at string) (*filetree.Root, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("mount namespace: %w", err)
	}
	root, err := openWritable(dirs, c.upper(), c.dir+"/work")
	if err != nil {
		return nil, err
	}
	if err := unix.MoveMount(root.FD(), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		root.Close()
		return nil, fmt.Errorf("mount overlay: %w", err)
	}
	mounts := slices.Clone(rec.Mounts)
	slices.SortStableFunc(mounts, func(a, b Mount) int { return strings.Count(a.Target, "/") - strings.Count(b.Target, "/") })
	if dir := rec.Run.WorkingDir; dir != "" { // the start makes it too
		if fd, err := root.MkdirAll(dir, 0o755); err == nil {
			unix.Close(fd)
		}
	}
	if rec.Started {
		mounts = append(e.etcMounts(c, rec), mounts...)
	}
	for _, m := range mounts {
		if err := e.mountInto(root, &m); err != nil {
			root.Close()
			return nil, err
		}
	}
	return root, nil
}

// etcMounts are the files that tell a container who it is, as it had them when it ran.
func (e *Engine) etcMounts(c *container, rec *record) []Mount {
	var out []Mount
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		m := Mount{Type: "bind", Source: filepath.Join(e.etcDir(c, &rec.Spec), name), Target: "/etc/" + name}
		covered := slices.ContainsFunc(rec.Mounts, func(o Mount) bool { return o.Target == m.Target })
		if _, err := os.Stat(m.Source); err == nil && !covered {
			out = append(out, m)
		}
	}
	return out
}

// mountInto binds a volume or a host path into a tree, if both ends are there.
func (e *Engine) mountInto(root *filetree.Root, m *Mount) error {
	if m.Type == "tmpfs" || m.Type == "image" { // made when the container runs
		return nil
	}
	om, err := e.ociMount(m)
	if err != nil {
		return err
	}
	if om.Type != "bind" {
		return nil // a file system of its own is mounted while the container runs
	}
	var from int
	if m.Subpath != "" {
		from, err = openSubpath(om.Source, m.Subpath)
	} else {
		from, err = unix.Open(om.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	defer unix.Close(from)
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	var fd int
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		fd, err = root.MkdirAll(m.Target, 0o755)
	} else {
		fd, err = root.OpenFD(m.Target, unix.O_PATH, 0)
		if filetree.NotExist(err) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	defer unix.Close(fd)
	src, err := unix.OpenTree(from, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	defer unix.Close(src)
	if m.ReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(src, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	if err := unix.MoveMount(src, "", fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	return nil
}
