package engine

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/runtime/linux"
)

// later is why a change of a running container's mounts comes with its next start only.
type later string

func (l later) Error() string { return string(l) }

// mountLive mounts what a running container has got. The mount is made here, where nobody sees it, and then put into the
// container's mount namespace by descriptor. An error of type later says what the kernel or the runtime can't do.
func (e *Engine) mountLive(c *container, r *run, m *Mount) error {
	box, err := e.mountsOf(c, r)
	if err != nil {
		return err
	}
	defer box.close()
	tree, dir, err := e.detachedMount(c, r, m)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	at, err := box.point(c, m.Target, dir)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return linux.InMounts(box.ns, func() error {
		err := unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
		return nil
	})
}

// mountBox is a running container's mounts.
type mountBox struct {
	ns   *os.File
	root *filetree.Root
}

func (b *mountBox) close() {
	b.root.Close()
	b.ns.Close()
}

// mountsOf opens the mount namespace of a container that our own runtime made: what others make of theirs is unknown.
func (e *Engine) mountsOf(c *container, r *run) (*mountBox, error) {
	c.mu.Lock()
	name := c.rec.Spec.Runtime
	c.mu.Unlock()
	t, err := e.runtimeFor(name)
	if err != nil {
		return nil, err
	}
	if t.shim != e.cfg.Shim || t.oci != "" {
		return nil, later("its runtime mounts at a start only")
	}
	ns, err := os.Open(path.Join("/proc", strconv.Itoa(r.pid), "ns/mnt"))
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.id, err)
	}
	if hasEnded(c) { // then the number may be another process's
		ns.Close()
		return nil, later("it has ended")
	}
	root := -1
	err = linux.InMounts(ns, func() (err error) {
		root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("container %s: %w", c.id, err)
	}
	return &mountBox{ns, filetree.FromFD(root, "container")}, nil
}

// point opens the place of a mount, which is made if it isn't there: links lead where they lead inside.
func (b *mountBox) point(c *container, target string, dir bool) (fd int, err error) {
	fd, err = b.root.OpenFD(target, unix.O_PATH, 0)
	if filetree.NotExist(err) {
		make := func() {
			if dir {
				var made int
				if made, err = b.root.MkdirAll(target, 0o755); err == nil {
					unix.Close(made)
				}
				return
			}
			var made int
			if made, err = b.root.MkdirAll(path.Dir(target), 0o755); err == nil {
				unix.Close(made)
				err = b.root.WriteFile(target, nil, 0o644)
			}
		}
		if ids := c.idMap(); ids != nil {
			linux.InThread(func() { // files are made by who has a place in the mapping
				uid, gid := ids.root()
				if err = (linux.Identity{UID: int(uid), GID: int(gid)}).Take(); err == nil {
					make()
				}
			})
		} else {
			make()
		}
		if errors.Is(err, unix.EROFS) {
			return -1, later("there is no " + target + " to mount on, and its file system is read-only")
		}
		if err == nil {
			fd, err = b.root.OpenFD(target, unix.O_PATH, 0)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("mount on %s: %w", target, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || (st.Mode&unix.S_IFMT == unix.S_IFDIR) != dir {
		unix.Close(fd)
		if err == nil {
			err = invalid("mount on %s: a directory and a file can't be mounted on each other", target)
		}
		return -1, err
	}
	return fd, nil
}

// detachedMount makes a mount that is nowhere yet.
func (e *Engine) detachedMount(c *container, r *run, m *Mount) (tree int, dir bool, err error) {
	if m.Type == "image" {
		return -1, false, later("images are mounted at a start only")
	}
	om, err := e.ociMount(m)
	if err != nil {
		return -1, false, err
	}
	switch om.Type {
	case "tmpfs":
		tree, err = detachedTmpfs(om.Options)
		return tree, true, err
	case "bind":
	default:
		return -1, false, later("a volume of type " + om.Type + " is mounted at a start only")
	}
	from, source := unix.AT_FDCWD, om.Source
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if !m.NonRecursive {
		flags |= unix.AT_RECURSIVE
	}
	if m.Subpath != "" {
		if from, err = openSubpath(source, m.Subpath); err != nil {
			return -1, false, err
		}
		defer unix.Close(from)
		source, flags = "", flags|unix.AT_EMPTY_PATH
	}
	tree, err = unix.OpenTree(from, source, flags)
	switch {
	case errors.Is(err, unix.ENOSYS):
		return -1, false, later("this kernel can't mount into a running container (Linux 5.2 can)")
	case err != nil:
		return -1, false, fmt.Errorf("mount %s: %w", om.Source, err)
	}
	if err := e.setMount(c, r, tree, m, om.Options); err != nil {
		unix.Close(tree)
		return -1, false, fmt.Errorf("mount %s: %w", om.Source, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		unix.Close(tree)
		return -1, false, err
	}
	return tree, st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

var propagations = map[string]uint64{"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE, "slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE,
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED}

var mountFlags = map[string]uint64{"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC}

// setMount gives a detached bind what its options say.
func (e *Engine) setMount(c *container, r *run, tree int, m *Mount, options []string) error {
	set := func(flags int, attr unix.MountAttr) error {
		err := unix.MountSetattr(tree, "", uint(flags|unix.AT_EMPTY_PATH), &attr)
		if errors.Is(err, unix.ENOSYS) {
			return later("this kernel can't set up a mount for a running container (Linux 5.12 can)")
		}
		return err
	}
	var own unix.MountAttr
	for _, o := range options {
		if p, ok := propagations[o]; ok {
			flags := 0
			if o[0] == 'r' {
				flags = unix.AT_RECURSIVE
			}
			if err := set(flags, unix.MountAttr{Propagation: p}); err != nil {
				return err
			}
		}
		own.Attr_set |= mountFlags[o]
	}
	if slices.Contains(options, "rro") {
		if err := set(unix.AT_RECURSIVE, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return err
		}
	}
	if c.idMap() != nil && (m.MapOwners || m.Type == "volume") {
		user, err := os.Open(path.Join("/proc", strconv.Itoa(r.pid), "ns/user"))
		if err != nil {
			return err
		}
		defer user.Close()
		own.Attr_set |= unix.MOUNT_ATTR_IDMAP
		own.Userns_fd = uint64(user.Fd())
	}
	if own == (unix.MountAttr{}) {
		return nil
	}
	return set(0, own)
}

// detachedTmpfs makes a tmpfs by its options.
func detachedTmpfs(options []string) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) {
		return -1, later("this kernel can't mount into a running container (Linux 5.2 can)")
	}
	if err != nil {
		return -1, fmt.Errorf("tmpfs: %w", err)
	}
	defer unix.Close(fs)
	var attrs uint64
	for _, o := range options {
		key, value, has := strings.Cut(o, "=")
		switch {
		case has:
			if err := unix.FsconfigSetString(fs, key, value); err != nil {
				return -1, invalid("tmpfs: %s: %v", o, err)
			}
		case o == "exec":
			attrs &^= unix.MOUNT_ATTR_NOEXEC
		default:
			attrs |= mountFlags[o]
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("tmpfs: %w", err)
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return -1, fmt.Errorf("tmpfs: %w", err)
	}
	return tree, nil
}

// unmountLive takes a mount out of a running container; who has files of it open keeps those. What is there must be what
// was mounted: the container's processes decide where a path leads, and may have another mount taken away by it that
// they are to have.
func (e *Engine) unmountLive(c *container, r *run, m *Mount) error {
	box, err := e.mountsOf(c, r)
	if err != nil {
		return err
	}
	defer box.close()
	parent, base, err := box.root.OpenParent(m.Target)
	moved := later("nothing is at " + m.Target + " by now, and the mount may be elsewhere")
	if err != nil {
		return moved
	}
	defer unix.Close(parent)
	at, err := unix.Openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return moved
	}
	defer unix.Close(at)
	var stx unix.Statx_t
	if err := unix.Statx(at, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &stx); err != nil {
		return fmt.Errorf("unmount %s: %w", m.Target, err)
	}
	if stx.Mode&unix.S_IFMT == unix.S_IFLNK || stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return later(m.Target + " is no mount any more")
	}
	same, err := e.isMountOf(m, at, &stx)
	if err != nil {
		return err
	}
	if !same {
		return later("what is mounted on " + m.Target + " is something else by now")
	}
	return linux.InMounts(box.ns, func() error {
		if err := unix.Fchdir(parent); err != nil {
			return err
		}
		if err := unix.Unmount(base, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", m.Target, err)
		}
		return nil
	})
}

// isMountOf says whether what is seen at a place is what a mount shows.
func (e *Engine) isMountOf(m *Mount, at int, seen *unix.Statx_t) (bool, error) {
	if m.Type == "tmpfs" {
		var st unix.Statfs_t
		err := unix.Fstatfs(at, &st)
		return err == nil && int64(st.Type) == unix.TMPFS_MAGIC, err
	}
	if m.Type == "image" {
		return false, nil // what it shows is made at the start
	}
	om, err := e.ociMount(m)
	if err != nil || om.Type != "bind" {
		return false, nil // its source is gone
	}
	from, source := unix.AT_FDCWD, om.Source
	flags := 0
	if m.Subpath != "" {
		if from, err = openSubpath(source, m.Subpath); err != nil {
			return false, nil
		}
		defer unix.Close(from)
		source, flags = "", unix.AT_EMPTY_PATH
	}
	var src unix.Statx_t
	if err := unix.Statx(from, source, flags, unix.STATX_BASIC_STATS, &src); err != nil {
		return false, nil
	}
	return src.Ino == seen.Ino && src.Dev_major == seen.Dev_major && src.Dev_minor == seen.Dev_minor, nil
}
