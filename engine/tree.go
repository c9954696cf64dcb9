package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/runtime/linux"
	"cale/shim"
)

// withTree calls fn with a container's files as the container sees them, its volumes included, and with the mapping of
// their owners if they have the host's ids. While fn writes into a stopped container nobody can start it; reading holds
// nobody up.
func (e *Engine) withTree(ctx context.Context, c *container, write bool, fn func(*filetree.Root, *IDMap) error) error {
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	unlock := sync.OnceFunc(func() { c.op.unlock() })
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
		ids := c.idMap()
		if ids == nil {
			return fn(root, nil)
		}
		linux.InThread(func() { // files are made by who has a place in the mapping
			uid, gid := ids.root()
			if err = (linux.Identity{UID: int(uid), GID: int(gid)}).Take(); err == nil {
				err = fn(root, ids)
			}
		})
		return err
	}
	defer unlock()
	plain := func(root *filetree.Root) error { return fn(root, nil) }
	dirs, err := e.lowers(&rec)
	if err != nil {
		return err
	}
	if write {
		return e.withMounts(c, &rec, dirs, true, plain)
	}
	if err := e.makeTargets(c, &rec, dirs); err != nil {
		return err
	}
	err = e.withMounts(c, &rec, dirs, false, func(root *filetree.Root) error {
		unlock()
		return plain(root)
	})
	c.mu.Lock()
	removed := c.removing
	c.mu.Unlock()
	if err == nil && removed { // what was read may be a part
		return conflict("container %s was removed meanwhile", c.id)
	}
	return err
}

// makeTargets makes what the start would make too: the directories that volumes are mounted on, and the working
// directory.
func (e *Engine) makeTargets(c *container, rec *record, dirs []string) error {
	var names []string
	for _, m := range rec.Mounts {
		if m.Type == "volume" || m.Type == "bind" {
			names = append(names, m.Target)
		}
	}
	if dir := rec.Run.WorkingDir; dir != "" {
		names = append(names, dir)
	}
	view, err := openLayers(append([]string{c.upper()}, dirs...))
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(names, func(n string) bool { _, err := view.Stat(n); return err == nil })
	view.Close()
	if len(missing) == 0 {
		return nil
	}
	root, err := openWritable(dirs, c.upper(), c.work())
	if err != nil {
		return err
	}
	defer root.Close()
	for _, n := range missing {
		// A file's target, or one that links make impossible, is left to the start.
		if fd, err := root.MkdirAll(n, 0o755); err == nil {
			unix.Close(fd)
		}
	}
	return nil
}

// rootAlone opens a running container's own files without what is mounted over them: a copy of the mount of its root,
// made by a thread in its mount namespace. Another mount of the same directories would be what overlayfs warns of.
func (e *Engine) rootAlone(ctx context.Context, c *container) (*filetree.Root, error) {
	ns, err := e.otherNamespace(ctx, c.id, "mnt")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var fd int
	linux.InThread(func() {
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return
		}
		fd, err = unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	})
	if err != nil {
		return nil, fmt.Errorf("root of container %s: %w", c.id, err)
	}
	return filetree.FromFD(fd, "container"), nil
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
func (e *Engine) withMounts(c *container, rec *record, dirs []string, write bool, fn func(*filetree.Root) error) error {
	at, err := os.MkdirTemp(e.cfg.Run, "tree-")
	if err != nil {
		return err
	}
	defer os.Remove(at)
	linux.InThread(func() {
		var root *filetree.Root
		if root, err = e.mountTree(c, rec, dirs, write, at); err != nil {
			return
		}
		defer root.Close()
		err = fn(root)
	})
	return err
}

func (e *Engine) mountTree(c *container, rec *record, dirs []string, write bool, at string) (*filetree.Root, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("mount namespace: %w", err)
	}
	root, err := e.viewOf(c, dirs, write)
	if err != nil {
		return nil, err
	}
	if err := unix.MoveMount(root.FD(), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		root.Close()
		return nil, fmt.Errorf("mount overlay: %w", err)
	}
	mounts := slices.Clone(rec.Mounts)
	slices.SortStableFunc(mounts, func(a, b Mount) int { return strings.Count(a.Target, "/") - strings.Count(b.Target, "/") })
	if dir := rec.Run.WorkingDir; dir != "" && write { // the start makes it too
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

// viewOf opens the image's files with the container's own over them.
func (e *Engine) viewOf(c *container, dirs []string, write bool) (*filetree.Root, error) {
	if write {
		return openWritable(dirs, c.upper(), c.work())
	}
	return openLayers(append([]string{c.upper()}, dirs...))
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
		if fd, err = root.OpenFD(m.Target, unix.O_PATH|unix.O_DIRECTORY, 0); filetree.NotExist(err) {
			fd, err = root.MkdirAll(m.Target, 0o755)
		}
		if errors.Is(err, unix.EROFS) {
			return nil
		}
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
