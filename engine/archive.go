package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"cale/engine/ocispec"
	"cale/filetree"
	"cale/layer"
)

// StatPath describes a file in a container, a link itself and not what it leads to.
func (e *Engine) StatPath(ctx context.Context, ref, name string) (PathStat, error) {
	c, err := e.find(ref)
	if err != nil {
		return PathStat{}, err
	}
	var st PathStat
	err = e.withTree(ctx, c, false, func(root *filetree.Root, _ *IDMap) (err error) {
		st, err = statPath(root, ref, name)
		return err
	})
	return st, err
}

// followed makes a name's trailing slash or dot mean the directory a link leads to.
func followed(name string) bool { return strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") }

func statPath(root *filetree.Root, ref, name string) (PathStat, error) {
	stat := root.Lstat
	if followed(name) {
		stat = root.Stat
	}
	raw, err := stat(name)
	if errors.Is(err, unix.ENOTDIR) {
		return PathStat{}, invalid("%s in container %s: not a directory", name, ref)
	}
	if filetree.NotExist(err) {
		return PathStat{}, notFound("Could not find the file %s in container %s", name, ref)
	}
	if err != nil {
		return PathStat{}, err
	}
	st := PathStat{Name: path.Base(path.Join("/", name)), Size: raw.Size, Mode: uint32(filetree.FileMode(raw.Mode)), Mtime: time.Unix(raw.Mtim.Unix())}
	if raw.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err := root.Readlink(name)
		if err != nil {
			return PathStat{}, err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(path.Join("/", name)), target)
		}
		st.LinkTarget = path.Clean(target)
	}
	return st, nil
}

// CopyFrom gives a tar of name (the last element is the archive's top) and returns its stat before the first byte.
// The reader must be closed.
func (e *Engine) CopyFrom(ctx context.Context, ref, name string) (PathStat, io.ReadCloser, error) {
	c, err := e.find(ref)
	if err != nil {
		return PathStat{}, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	head := make(chan error, 1)
	var st PathStat
	end := e.begin()
	go func() {
		defer end()
		told := false
		err := e.withTree(ctx, c, false, func(root *filetree.Root, ids *IDMap) error {
			var err error
			if st, err = statPath(root, ref, name); err != nil {
				return err
			}
			told = true
			head <- nil
			opts := layer.TarOptions{Start: name, Name: st.Name, Owners: ids.inside()}
			if followed(name) {
				opts.Start = strings.TrimRight(strings.TrimSuffix(name, "."), "/") + "/."
			}
			if path.Base("/"+name) == "." { // a directory named by its dot is called so
				opts.Name = "."
			}
			return layer.Tar(ctx, pw, root, opts)
		})
		if !told {
			head <- err
		}
		pw.CloseWithError(err)
	}()
	if err := <-head; err != nil {
		cancel()
		return PathStat{}, nil, err
	}
	e.emit(c, "archive-path")
	return st, &pipeEnd{pr, cancel}, nil
}

type pipeEnd struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (p *pipeEnd) Close() error {
	p.cancel()
	return p.PipeReader.Close()
}

// CopyTo unpacks a plain tar into the directory path.
func (e *Engine) CopyTo(ctx context.Context, ref, name string, r io.Reader, o CopyOptions) error {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	c.mu.Lock()
	rec := c.rec
	c.mu.Unlock()
	in, release := unstalled(r, c.op.wanted)
	defer release()
	err = e.withTree(ctx, c, true, func(root *filetree.Root, ids *IDMap) error {
		st, err := root.Stat(name)
		if errors.Is(err, unix.ENOTDIR) {
			return invalid("%s in container %s: not a directory", name, ref)
		}
		if filetree.NotExist(err) {
			return notFound("Could not find the file %s in container %s", name, ref)
		}
		if err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return invalid("extraction point is not a directory")
		}
		if rec.Spec.Security.ReadOnly {
			if own, err := onRoot(root, name); err != nil {
				return err
			} else if own {
				return fail(ErrForbidden, "container rootfs is marked read-only")
			}
		}
		opts := layer.ExtractOptions{Into: name, KeepKinds: o.NoOverwriteDirNonDir}
		if ids != nil {
			opts.Owners = ids.hostOwner
		}
		if o.CopyUIDGID && rec.Run.User != "" {
			acc, err := readAccounts(root)
			if err != nil {
				return err
			}
			u, _, err := ocispec.LookupUser(rec.Run.User, acc.passwd, acc.group, nil)
			if err != nil {
				return invalid("%v", err)
			}
			opts.Owner = &layer.Owner{UID: u.UID, GID: u.GID}
		}
		if _, err = layer.Extract(ctx, root, in, opts); err != nil && kernelOwn(root, name) {
			return invalid("cannot copy to %s in container %s: what is there is the kernel's, no files can be added", name, ref)
		}
		return err
	})
	if errors.Is(err, unix.EROFS) {
		return fail(ErrForbidden, "container rootfs is marked read-only")
	}
	if err != nil {
		return err
	}
	e.emit(c, "extract-to-dir")
	return nil
}

// mostStall is how long a client may keep a stopped container from others without sending anything.
var mostStall = 10 * time.Second

// unstalled passes r on until it gives nothing for mostStall while somebody is kept waiting. release lets go of it; the
// read that is under way then ends with r.
func unstalled(r io.Reader, wanted func() bool) (in io.Reader, release func()) {
	pr, pw := io.Pipe()
	var moved atomic.Int64
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				if _, werr := pw.Write(buf[:n]); werr != nil {
					return
				}
				moved.Add(int64(n))
			}
			if err != nil {
				pw.CloseWithError(err)
				return
			}
		}
	}()
	stop := make(chan struct{})
	go func() {
		tick := time.NewTicker(mostStall / 10)
		defer tick.Stop()
		for last, since := int64(-1), time.Now(); ; {
			select {
			case <-stop:
				return
			case now := <-tick.C:
				if n := moved.Load(); n != last || !wanted() {
					last, since = n, now
				} else if now.Sub(since) >= mostStall {
					pw.CloseWithError(conflict("nothing was sent for %s, and others wait for the container", mostStall))
					return
				}
			}
		}
	}()
	return pr, sync.OnceFunc(func() {
		close(stop)
		pr.CloseWithError(io.ErrClosedPipe)
	})
}

// kernelOwn says whether a name lies in a file system whose files are the kernel's: /proc, /sys.
func kernelOwn(root *filetree.Root, name string) bool {
	fd, err := root.OpenFD(name, unix.O_PATH, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && slices.Contains([]int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC}, int64(st.Type))
}

// onRoot says whether a name leads to the container's own files, wherever links on the way go: not into a volume.
func onRoot(root *filetree.Root, name string) (bool, error) {
	fd, err := root.OpenFD(name, unix.O_PATH, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var here, top unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &here); err != nil {
		return false, fmt.Errorf("mount of %s: %w", name, err)
	}
	if err := unix.Statx(root.FD(), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &top); err != nil {
		return false, fmt.Errorf("mount of /: %w", err)
	}
	return here.Mnt_id == top.Mnt_id, nil
}

// Export writes a container's files as a tar, without its volumes.
func (e *Engine) Export(ctx context.Context, ref string, w io.Writer) error {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	root, err := e.rootAlone(ctx, c)
	opts := layer.TarOptions{Owners: c.idMap().inside()}
	if err != nil { // it doesn't run
		root, err = e.ownFiles(c)
		opts.Owners = nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	if err := layer.Tar(ctx, w, root, opts); err != nil {
		return fmt.Errorf("export container %s: %w", ref, err)
	}
	e.emit(c, "export")
	return nil
}

// ownFiles opens the image's files with the container's own over them, for reading.
func (e *Engine) ownFiles(c *container) (*filetree.Root, error) {
	c.mu.Lock()
	rec := c.rec
	c.mu.Unlock()
	dirs, err := e.lowers(&rec)
	if err != nil {
		return nil, err
	}
	return openLayers(append([]string{c.upper()}, dirs...))
}

// Changes lists what differs from the image: 0 changed, 1 added, 2 deleted.
func (e *Engine) Changes(ctx context.Context, ref string) ([]Change, error) {
	c, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	rec := c.rec
	c.mu.Unlock()
	dirs, err := e.lowers(&rec)
	if err != nil {
		return nil, err
	}
	below, err := openLayers(dirs)
	if err != nil {
		return nil, err
	}
	defer below.Close()
	upper, err := filetree.Open(c.upper())
	if err != nil {
		return nil, err
	}
	defer upper.Close()
	mounts := map[string]bool{}
	for _, m := range rec.Mounts {
		mounts[m.Target] = true
	}
	for t := range rec.Spec.Tmpfs {
		mounts[path.Clean(t)] = true
	}
	var out []Change
	err = upper.Walk("", func(en *filetree.Entry) error {
		if en.Path == "" {
			return ctx.Err()
		}
		name := "/" + en.Path
		if mounts[name] {
			return nil // made to be mounted on
		}
		old, err := below.Lstat(en.Path)
		there := err == nil
		kind := en.Stat.Mode & unix.S_IFMT
		switch {
		case kind == unix.S_IFCHR && en.Stat.Rdev == 0:
			if there {
				out = append(out, Change{Kind: 2, Path: name})
			}
			return nil
		case !there:
			out = append(out, Change{Kind: 1, Path: name})
			return nil
		}
		out = append(out, Change{Kind: 0, Path: name})
		opaque, _ := filetree.Xattr(en.Dir, en.Name, "trusted.overlay.opaque")
		if kind == unix.S_IFDIR && old.Mode&unix.S_IFMT == unix.S_IFDIR && string(opaque) == "y" {
			hidden, err := deletedIn(below, upper, en.Path)
			if err != nil {
				return err
			}
			out = append(out, hidden...)
		}
		return nil
	})
	return out, err
}

// deletedIn lists what an opaque directory hides and doesn't hold itself.
func deletedIn(below, upper *filetree.Root, dir string) ([]Change, error) {
	var out []Change
	err := below.Walk(dir, func(en *filetree.Entry) error {
		if en.Path == "" {
			return nil
		}
		name := path.Join(dir, en.Path)
		if _, err := upper.Lstat(name); filetree.NotExist(err) {
			out = append(out, Change{Kind: 2, Path: "/" + name})
		}
		if en.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return out, err
}
