package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"unsafe"

	"cale/runtime/launch"

	"golang.org/x/sys/unix"
)

const (
	moveEmpty = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH

	statxMode  = int(unsafe.Offsetof(unix.Statx_t{}.Mode))
	statxMajor = int(unsafe.Offsetof(unix.Statx_t{}.Rdev_major))
	statxMinor = int(unsafe.Offsetof(unix.Statx_t{}.Rdev_minor))

	statxDevMajor = int(unsafe.Offsetof(unix.Statx_t{}.Dev_major))
	statxDevMinor = int(unsafe.Offsetof(unix.Statx_t{}.Dev_minor))
)

// cwd is AT_FDCWD as an argument.
var cwd = launch.N(unix.AT_FDCWD)

// Build adds the steps that make the tree, in the container's namespaces. The root is not entered yet: the host's
// tree is still there.
func (t *Tree) Build(p *launch.Program) {
	t.rootReg, t.oldReg, t.nullReg = p.Reg(), p.Reg(), p.Reg()
	for i := range t.mounts {
		m := &t.mounts[i]
		if m.Type == "tmpfs" && !m.opts.remount && m.opts.set&unix.MOUNT_ATTR_RDONLY != 0 {
			// What is mounted below still has to be made.
			m.opts.set &^= unix.MOUNT_ATTR_RDONLY
			t.readonly = append(t.readonly, mount{Mount: m.Mount, dest: m.dest, opts: options{remount: true, bind: true, set: unix.MOUNT_ATTR_RDONLY}})
		}
		// While these are still the host's peers: what is to be shared with it can only come from them.
		t.emitDetached(p, m)
		if m.Type == "tmpfs" && m.opts.copyUp && !m.opts.remount && m.fd == nil {
			t.emitCopyUp(p, i)
		}
	}
	if !t.o.HostMounts {
		p.Step("make the host's mounts slaves")
		setattr(p, cwd, "/", unix.AT_RECURSIVE, unix.MountAttr{Propagation: unix.MS_SLAVE})
	}
	p.Step("open the host's root")
	p.Call(unix.SYS_OPENAT, cwd, p.Str("/"), launch.N(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)).To(t.oldReg)
	t.openNull(p)
	t.attachRoot(p)
	for i := range t.mounts {
		t.placed = i
		t.emitMount(p, &t.mounts[i])
	}
	t.placed = len(t.mounts)
	t.emitDevices(p)
}

// Root is the register with the root's descriptor, from Build on.
func (t *Tree) Root() launch.Reg { return t.rootReg }

// openNull opens the host's /dev/null and checks that it is that.
func (t *Tree) openNull(p *launch.Program) {
	p.Step("open the host's /dev/null")
	done := p.Label()
	p.Call(unix.SYS_OPENAT, cwd, p.Str("/dev/null"), launch.N(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)).To(t.nullReg)
	p.Step("check that /dev/null is the null device")
	st := statx(p, t.nullReg.Arg(), "")
	p.Equal(p.Load32(st, statxMode, unix.S_IFMT).Arg(), launch.N(unix.S_IFCHR), unix.ENODEV)
	p.Equal(p.Load32(st, statxMajor, ^uint32(0)).Arg(), launch.N(1), unix.ENODEV)
	p.Equal(p.Load32(st, statxMinor, ^uint32(0)).Arg(), launch.N(3), unix.ENODEV)
	p.Bind(done)
}

// statx adds a statx of what a descriptor is (name "") or of a name below it, and returns the address of the answer.
func statx(p *launch.Program, fd launch.Arg, name string) launch.Arg {
	st := launch.Ptr(p.Mem(int(unsafe.Sizeof(unix.Statx_t{}))))
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	p.Call(unix.SYS_STATX, fd, p.Str(name), launch.N(flags), launch.N(unix.STATX_BASIC_STATS), st)
	return st
}

func setattr(p *launch.Program, fd launch.Arg, name string, flags int, attr unix.MountAttr) launch.Op {
	return p.Call(unix.SYS_MOUNT_SETATTR, fd, p.Str(name), launch.N(flags), launch.Copy(p, attr), launch.N(unix.MOUNT_ATTR_SIZE_VER0))
}

// attachRoot puts the root onto a directory of the child's copy of the host's mounts: the new root of pivot_root
// has to be mounted somewhere.
func (t *Tree) attachRoot(p *launch.Program) {
	root := t.o.Spec.Root
	if t.o.HostMounts && len(t.roots) == 0 {
		p.Step("open the root file system")
		p.Call(unix.SYS_OPENAT, cwd, p.Str(t.abs(root.Path)), launch.N(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)).To(t.rootReg)
		return
	}
	for i, s := range t.roots {
		p.Step("open the root file system")
		r := t.tree(p, &s)
		t.setAttrs(p, r, &s.opts)
		p.Step("attach the root file system")
		if i == 0 {
			at := t.openAttachPoint(p)
			p.Call(unix.SYS_MOVE_MOUNT, r.Arg(), p.Str(""), at.Arg(), p.Str(""), launch.N(moveEmpty))
			p.Close(at)
		} else {
			p.Call(unix.SYS_MOVE_MOUNT, r.Arg(), p.Str(""), t.rootReg.Arg(), p.Str(""), launch.N(moveEmpty))
		}
		p.Set(t.rootReg, r.Arg())
	}
}

// openAttachPoint opens the directory that the root is mounted on: the root's own, so that hooks find the container's
// tree where the configuration says; or, if the child can't reach that or there is none, one that every machine has.
// It is covered in the child's mount namespace only.
func (t *Tree) openAttachPoint(p *launch.Program) launch.Reg {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	at, done := p.Reg(), p.Label()
	if t.o.AttachAt != "" {
		p.Call(unix.SYS_OPENAT, cwd, p.Str(t.o.AttachAt), launch.N(flags)).To(at)
		return at
	}
	if root := t.o.Spec.Root; root != nil && root.Path != "" && path.Clean(root.Path) != "/" {
		p.Call(unix.SYS_OPENAT, cwd, p.Str(t.abs(root.Path)), launch.N(flags)).To(at).
			Accept(unix.EACCES, unix.ENOENT, unix.ENOTDIR).Then(done)
	}
	points := []string{"/sys", "/proc", "/dev", "/tmp"}
	if t.o.NoPivot {
		points = points[2:] // the first two are let go of before the root is moved
	}
	for _, dir := range points {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			p.Call(unix.SYS_OPENAT, cwd, p.Str(dir), launch.N(flags)).To(at)
			break
		}
	}
	p.Bind(done)
	return at
}

// tree gives a register with a source's detached tree.
func (t *Tree) tree(p *launch.Program, s *source) launch.Reg {
	r := p.Reg()
	if s.fd != nil {
		p.Set(r, launch.N(s.fd.Fd()))
		return r
	}
	flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if s.rec {
		flags |= unix.AT_RECURSIVE
	}
	if s.nofollow {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	p.Call(unix.SYS_OPEN_TREE, cwd, p.Str(s.path), launch.N(flags)).To(r)
	return r
}

// setAttrs gives a detached tree its mount options. Nothing of it may stay a peer of the host's mounts unless that
// was asked for.
func (t *Tree) setAttrs(p *launch.Program, r launch.Reg, o *options) {
	prop, rec := o.propagation, o.propagationRec
	if prop == 0 {
		prop, rec = unix.MS_SLAVE, true
	}
	if rec {
		setattr(p, r.Arg(), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, unix.MountAttr{Attr_set: o.rset, Attr_clr: o.rclear, Propagation: prop})
		if o.set|o.clear != 0 {
			setattr(p, r.Arg(), "", unix.AT_EMPTY_PATH, unix.MountAttr{Attr_set: o.set, Attr_clr: o.clear})
		}
		return
	}
	// The mounts below get no propagation of their own: they stop being peers.
	setattr(p, r.Arg(), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, unix.MountAttr{Attr_set: o.rset, Attr_clr: o.rclear, Propagation: subPropagation(prop)})
	setattr(p, r.Arg(), "", unix.AT_EMPTY_PATH, unix.MountAttr{Attr_set: o.set, Attr_clr: o.clear, Propagation: prop})
}

// subPropagation is what mounts below one with a propagation become when that is not recursive. The first call sets
// it for the top too, and a shared one must not lose its peers by that.
func subPropagation(top uint64) uint64 {
	if top == unix.MS_SHARED {
		return 0
	}
	return unix.MS_SLAVE
}

// emitDetached makes a mount that isn't attached yet.
func (t *Tree) emitDetached(p *launch.Program, m *mount) {
	if m.Type == linkType || m.opts.remount {
		return
	}
	p.Step("mount " + name(m.Mount) + " on /" + m.dest)
	switch {
	case m.src != nil && m.src.inside != "":
	case m.src != nil:
		m.reg = t.tree(p, m.src)
		t.setAttrs(p, m.reg, &m.opts)
	case m.fd != nil:
		m.reg = p.Reg()
		p.Set(m.reg, launch.N(m.fd.Fd()))
		t.setAttrs(p, m.reg, &m.opts)
	default:
		m.reg = t.emitFS(p, m)
	}
}

// emitMount puts a mount where it belongs.
func (t *Tree) emitMount(p *launch.Program, m *mount) {
	if m.Type == linkType {
		p.Step("make the link /" + m.dest)
		dir := t.ensure(p, path.Dir(m.dest), true)
		p.Call(unix.SYS_SYMLINKAT, p.Str(m.Source), dir.Arg(), p.Str(path.Base(m.dest))).Accept(unix.EEXIST)
		p.Close(dir)
		return
	}
	step := "mount " + name(m.Mount) + " on /" + m.dest
	p.Step(step)
	if m.opts.remount {
		t.emitRemount(p, m)
		return
	}
	if m.src != nil && m.src.inside != "" {
		at := p.Open(t.rootReg, m.src.inside, unix.O_PATH|lastLink(m.opts.nofollow)).New()
		flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH
		if m.src.rec {
			flags |= unix.AT_RECURSIVE
		}
		m.reg = p.Call(unix.SYS_OPEN_TREE, at.Arg(), p.Str(""), launch.N(flags)).New()
		p.Close(at)
		if m.src.mapping != nil {
			t.emitMapOwners(p, m)
		}
		t.setAttrs(p, m.reg, &m.opts)
	}
	var target launch.Reg
	if m.Type == "proc" || m.Type == "sysfs" {
		target = t.ensurePlain(p, m)
	} else {
		target = t.ensurePlace(p, m.dest, m.src == nil || m.src.dir, m.opts.destNofollow)
		t.guardProc(p, m, target)
	}
	p.Step(step)
	p.Call(unix.SYS_MOVE_MOUNT, m.reg.Arg(), p.Str(""), target.Arg(), p.Str(""), launch.N(moveEmpty))
	if m.dest == "" {
		p.Set(t.rootReg, m.reg.Arg())
		return
	}
	t.noteProc(p, m)
	p.Close(m.reg)
	p.Close(target)
}

// Explain words the failure of a mount as runc does. To one that failed because one side is a directory and the other
// isn't it adds what the kernel doesn't say.
func (t *Tree) Explain(err error) error {
	var e *launch.Error
	if !errors.As(err, &e) {
		return err
	}
	for i := range t.mounts {
		m := &t.mounts[i]
		step := "mount " + name(m.Mount) + " on /" + m.dest
		if e.Step != step && !strings.HasPrefix(e.Step, step+":") {
			continue
		}
		err = mountError(m.Mount, err)
		if m.src == nil || e.Step != step || e.Errno != unix.EINVAL && e.Errno != unix.ENOTDIR {
			return err
		}
		var stx unix.Statx_t
		fd, lerr := t.lookup(m.dest, unix.O_PATH)
		if lerr == nil {
			lerr = unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &stx)
			unix.Close(fd)
		}
		t.placed = i
		if !t.covered(m.dest) && (lerr != nil || (stx.Mode&unix.S_IFMT == unix.S_IFDIR) == m.src.dir) {
			return err // something else is wrong
		}
		return fmt.Errorf("%w: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type", err)
	}
	return err
}

// emitFS makes a file system in the child, detached.
func (t *Tree) emitFS(p *launch.Program, m *mount) launch.Reg {
	fs := p.Call(unix.SYS_FSOPEN, p.Str(m.Type), launch.N(unix.FSOPEN_CLOEXEC)).New()
	configure(p, fs, "mount "+name(m.Mount)+" on /"+m.dest, m.fsOptions())
	p.Call(unix.SYS_FSCONFIG, fs.Arg(), launch.N(unix.FSCONFIG_CMD_CREATE), launch.N(0), launch.N(0), launch.N(0))
	r := p.Call(unix.SYS_FSMOUNT, fs.Arg(), launch.N(unix.FSMOUNT_CLOEXEC), launch.N(m.opts.set)).New()
	p.Close(fs)
	if m.opts.propagation != 0 {
		setattr(p, r.Arg(), "", unix.AT_EMPTY_PATH, unix.MountAttr{Propagation: m.opts.propagation})
	}
	if m.opts.rset|m.opts.rclear != 0 {
		setattr(p, r.Arg(), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, unix.MountAttr{Attr_set: m.opts.rset, Attr_clr: m.opts.rclear})
	}
	return r
}

// configure tells a file system its options, each in a step that names it; what follows is in step again.
func configure(p *launch.Program, fs launch.Reg, step string, list []fsOption) {
	for _, o := range list {
		if o.value == nil {
			p.Step(step + ": option " + o.key)
			p.Call(unix.SYS_FSCONFIG, fs.Arg(), launch.N(unix.FSCONFIG_SET_FLAG), p.Str(o.key), launch.N(0), launch.N(0))
		} else {
			p.Step(step + ": option " + o.key + "=" + *o.value)
			p.Call(unix.SYS_FSCONFIG, fs.Arg(), launch.N(unix.FSCONFIG_SET_STRING), p.Str(o.key), p.Str(*o.value), launch.N(0))
		}
	}
	p.Step(step)
}

// emitRemount changes a mount that is there: with "bind" its own options, else those of the file system too.
func (t *Tree) emitRemount(p *launch.Program, m *mount) {
	r := t.rootReg
	if m.dest != "" {
		r = p.Open(t.rootReg, m.dest, unix.O_PATH).New()
	}
	if !m.opts.bind {
		fs := p.Call(unix.SYS_FSPICK, r.Arg(), p.Str(""), launch.N(unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH)).New()
		m.opts.readonly = false
		configure(p, fs, "mount "+name(m.Mount)+" on /"+m.dest, fsOptionsOf(m.Type, "", m.opts, ""))
		p.Call(unix.SYS_FSCONFIG, fs.Arg(), launch.N(unix.FSCONFIG_CMD_RECONFIGURE), launch.N(0), launch.N(0), launch.N(0))
		p.Close(fs)
	}
	setattr(p, r.Arg(), "", unix.AT_EMPTY_PATH, unix.MountAttr{Attr_set: m.opts.set, Attr_clr: m.opts.clear, Propagation: m.opts.propagation})
	if m.opts.rset|m.opts.rclear != 0 {
		setattr(p, r.Arg(), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, unix.MountAttr{Attr_set: m.opts.rset, Attr_clr: m.opts.rclear})
	}
	if m.dest != "" {
		p.Close(r)
	}
}
