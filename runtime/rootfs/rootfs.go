// Package rootfs builds a container's file tree by descriptor: no function of it takes a path into the tree as a
// host's string, and nothing it mounts is visible on the host.
package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"cale/runtime/launch"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Mount is a file system by type, source and fstab options, as a caller hands it over for the container's root.
type Mount struct {
	Type    string
	Source  string
	Options []string
}

// Options say what tree to build.
type Options struct {
	Spec   *specs.Spec
	Bundle string
	// Mounts replace the spec's root path, each mounted over the one before.
	Mounts []Mount
	// CgroupDirs are the container's groups by controller, as package cgroup names them ("" is cgroup2), for
	// mounts of type cgroup.
	CgroupDirs map[string]string
	// NewUser says that the container has a user namespace of its own: device nodes are bound, not made.
	NewUser bool
	// Unprivileged says that the caller may not mount: everything is opened by the child in its namespaces.
	Unprivileged bool
	// HostMounts says that the container has no mount namespace of its own.
	HostMounts bool
	// NoPivot uses a chroot instead of pivot_root.
	NoPivot bool
	// AttachAt is a directory of the host to attach the root at, instead of one that Build chooses.
	AttachAt string
	// UserNS opens a user namespace with mappings, for mounts with mapped owners.
	UserNS func(uids, gids []specs.LinuxIDMapping) (*os.File, error)
	// Warn is told what was left out.
	Warn func(string)
}

// Tree is a file tree that is prepared in the parent by Prepare, built in the child by the steps that Build and
// Enter add to its program, and forgotten by Close.
type Tree struct {
	o        Options
	root     *os.File // the root as the parent can look at it; nothing is mounted on it yet
	roots    []source // to be attached in the child, each over the one before
	mounts   []mount
	readonly []mount // mounts to be made read-only when all below them is there
	nodes    []node
	made     *os.File // a file system for nodes that the container couldn't make
	fds      []*os.File
	placed   int // how many of mounts come before what is being worked out

	// In the child:
	rootReg launch.Reg
	oldReg  launch.Reg
	nullReg launch.Reg // /dev/null of the host, checked

	hasProc              bool // the container's /proc is mounted; its device number:
	procMajor, procMinor launch.Reg
}

// source is what to bind: a detached tree the parent has opened, or a path the child opens.
type source struct {
	fd   *os.File
	path string
	rec  bool
	dir  bool
	opts options
	// inside is a path in the container, instead of all these: what is mounted there when it is this mount's turn.
	inside  string
	mapping *os.File // for such: the user namespace of mapped owners
	// nofollow takes a link at the path's end as itself.
	nofollow bool
}

// mount is one entry of the spec, prepared.
type mount struct {
	specs.Mount
	opts options
	dest string // without slash at the start; "" is the root
	src  *source
	fd   *os.File   // a detached file system made by the parent
	mode string     // for a tmpfs over a directory: that directory's mode
	reg  launch.Reg // in the child: the detached mount
}

// node is a device to be made or bound.
type node struct {
	path     string
	mode     uint32
	dev      uint64
	uid, gid uint32
	owned    bool // mode or owner are the configuration's
	src      *source
}

// Prepare opens what the tree is made of, in the caller's mount namespace.
func Prepare(o Options) (_ *Tree, err error) {
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	t := &Tree{o: o}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if err := t.openRoot(); err != nil {
		return nil, err
	}
	t.mounts = make([]mount, 0, len(o.Spec.Mounts)+2*len(o.CgroupDirs))
	for _, m := range o.Spec.Mounts {
		t.placed = len(t.mounts)
		if err := t.prepareMount(m); err != nil {
			return nil, mountError(m, err)
		}
	}
	if err := t.prepareDevices(); err != nil {
		return nil, err
	}
	return t, nil
}

// Close closes the parent's descriptors. What the child hasn't attached by then is gone.
func (t *Tree) Close() {
	for _, f := range t.fds {
		f.Close()
	}
	t.fds = nil
}

func (t *Tree) own(fd int, name string) *os.File {
	f := os.NewFile(uintptr(fd), name)
	t.fds = append(t.fds, f)
	return f
}

func name(m specs.Mount) string {
	if m.Source != "" && m.Source != m.Type {
		return m.Source
	}
	return m.Type
}

func (t *Tree) openRoot() error {
	for i, m := range t.o.Mounts {
		opts, err := parseOptions(m.Options)
		if err != nil {
			return fmt.Errorf("root file system: %w", err)
		}
		mapping, err := t.takeMapping(&opts)
		if err != nil {
			return fmt.Errorf("root file system: %w", err)
		}
		var s source
		switch {
		case opts.bind || m.Type == "bind":
			s, err = t.openSource(t.abs(m.Source), opts.rec, false, true)
			if err == nil && mapping != nil {
				err = t.mapOwners(s.fd, mapping.ns, opts)
			}
		case mapping != nil && m.Type != "overlay":
			err = errors.New("mapped owners are supported for bind and overlay mounts only")
		default:
			s.dir = true
			s.fd, err = t.makeFS(m.Type, m.Source, opts, mapping)
		}
		if err != nil {
			return fmt.Errorf("root file system %s: %w", m.Type, err)
		}
		s.opts = opts
		t.roots = append(t.roots, s)
		if i == len(t.o.Mounts)-1 {
			t.root = s.fd
		}
	}
	if len(t.roots) > 0 {
		return nil
	}
	if t.o.Spec.Root == nil || t.o.Spec.Root.Path == "" {
		return errors.New("the configuration has no root.path")
	}
	p := t.abs(t.o.Spec.Root.Path)
	if !t.o.HostMounts {
		s, err := t.openSource(p, true, false, true)
		if err != nil {
			return fmt.Errorf("root file system %s: %w", p, err)
		}
		if !s.dir {
			return fmt.Errorf("root file system %s: not a directory", p)
		}
		t.roots = append(t.roots, s)
		t.root = s.fd
	}
	if t.root == nil {
		fd, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("root file system %s: %w", p, err)
		}
		t.root = t.own(fd, p)
	}
	return nil
}

// abs makes a host path of the configuration absolute.
func (t *Tree) abs(p string) string {
	if !strings.HasPrefix(p, "/") {
		p = path.Join(t.o.Bundle, p)
	}
	return p
}

// openSource looks at a host path that is to be bound. Usually the child clones it, in its place in the order of the
// mounts, which is also the order in which the container's mounts are listed. Root of a user namespace may not reach
// the path, so there it is cloned here; also if the caller needs it now.
func (t *Tree) openSource(p string, rec, nofollow, now bool) (source, error) {
	s := source{path: p, rec: rec, nofollow: nofollow}
	at := 0
	if nofollow {
		at = unix.AT_SYMLINK_NOFOLLOW
	}
	var stx unix.Statx_t
	if t.o.Unprivileged || !t.o.NewUser && !now {
		if err := unix.Statx(unix.AT_FDCWD, p, at, unix.STATX_TYPE, &stx); err != nil {
			return s, err
		}
		s.dir = stx.Mode&unix.S_IFMT == unix.S_IFDIR
		return s, nil
	}
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | at)
	if rec {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, p, flags)
	if err != nil {
		return s, err
	}
	s.fd = t.own(fd, p)
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &stx); err != nil {
		return s, err
	}
	s.dir = stx.Mode&unix.S_IFMT == unix.S_IFDIR
	return s, nil
}

// mountError words a mount's failure as runc does.
func mountError(m specs.Mount, err error) error {
	return fmt.Errorf("error mounting %q to rootfs at %q: %w", name(m), m.Destination, err)
}

// clean is a path in the container without its leading slash.
func clean(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

func (t *Tree) prepareMount(m specs.Mount) error {
	opts, err := parseOptions(m.Options)
	if err != nil {
		return err
	}
	pm := mount{Mount: m, opts: opts, dest: clean(m.Destination)}
	// A destination given as the host's path of the root is meant within it, as in runc.
	if rest, ok := t.inRoot(m.Destination); ok {
		pm.dest = rest
	}
	if m.Destination == "" {
		return errors.New("no destination")
	}
	if m.Type == "bind" || m.Type == "rbind" || m.Type == "none" || m.Type == "" {
		pm.opts.bind = pm.opts.bind || m.Type == "bind" || m.Type == "rbind"
		pm.opts.rec = pm.opts.rec || m.Type == "rbind"
	}
	if !opts.remount {
		if err := t.checkProc(&pm); err != nil {
			return err
		}
	}
	mapped := len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 || opts.idmap
	switch {
	case pm.opts.bind && opts.remount:
	case pm.opts.bind:
		var mapping *os.File
		if mapped {
			if mapping, err = t.openMapping(m); err != nil {
				return err
			}
		}
		if rest, ok := t.inRoot(t.abs(m.Source)); ok && (t.covered(rest) || t.covers(rest)) {
			// It may be what an earlier mount of the container shows there.
			pm.src = &source{inside: rest, rec: pm.opts.rec, dir: true, mapping: mapping}
			break
		}
		s, err := t.openSource(t.abs(m.Source), pm.opts.rec, opts.nofollow, mapped)
		if err != nil {
			return err
		}
		pm.src = &s
		if err := t.setBind(&pm.opts, &s); err != nil {
			return err
		}
		if mapped {
			if err := t.mapOwners(s.fd, mapping, opts); err != nil {
				return err
			}
		}
	case mapped:
		return errors.New("mapped owners (idmap) are supported for bind mounts only")
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return t.prepareCgroup(pm)
	case m.Type == "tmpfs":
		if err := t.prepareTmpfs(&pm); err != nil {
			return err
		}
	case m.Type == "":
		return errors.New("no type")
	case !inChild[m.Type] && !t.o.Unprivileged:
		if pm.fd, err = t.makeFS(m.Type, m.Source, opts, nil); err != nil {
			return err
		}
	}
	t.mounts = append(t.mounts, pm)
	return nil
}

// inRoot is a host path relative to the root's path, if it lies below that.
func (t *Tree) inRoot(p string) (string, bool) {
	if t.o.Spec.Root == nil || t.o.Spec.Root.Path == "" || len(t.o.Mounts) > 0 {
		return "", false
	}
	root := path.Clean(t.abs(t.o.Spec.Root.Path))
	rest, ok := strings.CutPrefix(path.Clean(p), root+"/")
	return rest, ok && root != "/"
}

// inChild are the file systems that show the mounter's namespaces, and so have to be made by the child.
var inChild = map[string]bool{
	"proc": true, "sysfs": true, "mqueue": true, "devpts": true, "tmpfs": true, "ramfs": true, "binder": true,
}

// openMapping opens the user namespace whose mappings a mount is to have: its own, else the container's.
func (t *Tree) openMapping(m specs.Mount) (*os.File, error) {
	if t.o.Unprivileged || t.o.UserNS == nil {
		return nil, errors.New("mapped owners (idmap) need a privileged caller")
	}
	l := t.o.Spec.Linux
	uids, gids := m.UIDMappings, m.GIDMappings
	if len(uids) == 0 && len(gids) == 0 {
		uids, gids = l.UIDMappings, l.GIDMappings
		for _, ns := range l.Namespaces {
			if ns.Type == specs.UserNamespace && ns.Path != "" {
				f, err := os.Open(ns.Path)
				if err == nil {
					t.fds = append(t.fds, f)
				}
				return f, err
			}
		}
	}
	if len(uids) == 0 || len(gids) == 0 {
		return nil, errors.New("mapped owners (idmap) need both uidMappings and gidMappings")
	}
	ns, err := t.o.UserNS(uids, gids)
	if err != nil {
		return nil, fmt.Errorf("user namespace of the mapping: %w", err)
	}
	t.fds = append(t.fds, ns)
	return ns, nil
}

// mapOwners maps the owners of a detached tree.
func (t *Tree) mapOwners(fd, ns *os.File, opts options) error {
	flags, attr := idmapAttr(ns, opts)
	if err := unix.MountSetattr(int(fd.Fd()), "", uint(flags), &attr); err != nil {
		return fmt.Errorf("map owners: %w", err)
	}
	return nil
}

func idmapAttr(ns *os.File, opts options) (int, unix.MountAttr) {
	flags := unix.AT_EMPTY_PATH
	if opts.idmapRec {
		flags |= unix.AT_RECURSIVE
	}
	return flags, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
}

// RootFile is the root, as it is before anything is mounted on it. It belongs to the tree.
func (t *Tree) RootFile() *os.File { return t.root }
