package rootfs

import (
	"os"
	"slices"
	"strings"

	"cale/runtime/launch"

	"golang.org/x/sys/unix"
)

// Enter adds the steps that close the tree: paths masked and made read-only, the root made the process's root, and
// the host's mounts let go. The working directory is the new root afterwards.
func (t *Tree) Enter(p *launch.Program) {
	for i := range t.readonly {
		t.emitMount(p, &t.readonly[i])
	}
	if l := t.o.Spec.Linux; l != nil {
		for _, s := range unique(l.ReadonlyPaths) {
			t.emitReadonly(p, s)
		}
		masks := p.Reg()
		p.Step("mask paths")
		p.Set(masks, launch.N(-1))
		for _, s := range unique(l.MaskedPaths) {
			t.emitMask(p, s, masks)
		}
	}
	if r := t.o.Spec.Root; r != nil && r.Readonly && !t.o.HostMounts {
		p.Step("make the root file system read-only")
		setattr(p, t.rootReg.Arg(), "", unix.AT_EMPTY_PATH, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	p.Step("enter the root file system")
	p.Call(unix.SYS_FCHDIR, t.rootReg.Arg())
	switch {
	case t.o.HostMounts:
		p.Call(unix.SYS_CHROOT, p.Str("."))
	case t.o.NoPivot:
		t.emitHideKernel(p)
		p.Step("move the root file system to /")
		p.Call(unix.SYS_MOUNT, p.Str("."), p.Str("/"), launch.N(0), launch.N(unix.MS_MOVE), launch.N(0))
		p.Call(unix.SYS_CHROOT, p.Str("."))
	default:
		p.Step("pivot_root")
		p.Call(unix.SYS_PIVOT_ROOT, p.Str("."), p.Str("."))
		p.Step("let go of the host's mounts")
		// The old root now lies over the new one; it is a slave, so nothing of this reaches the host.
		p.Call(unix.SYS_FCHDIR, t.oldReg.Arg())
		p.Call(unix.SYS_UMOUNT2, p.Str("."), launch.N(unix.MNT_DETACH))
	}
	p.Call(unix.SYS_CHDIR, p.Str("/"))
	if l := t.o.Spec.Linux; l != nil {
		if v, ok := propagation(strings.TrimPrefix(l.RootfsPropagation, "r")); ok {
			// pivot_root takes no shared mount, so this comes after it.
			p.Step("set the root file system's propagation")
			flags := unix.AT_EMPTY_PATH
			if strings.HasPrefix(l.RootfsPropagation, "r") {
				flags |= unix.AT_RECURSIVE
			}
			setattr(p, t.rootReg.Arg(), "", flags, unix.MountAttr{Propagation: v})
		}
	}
	p.Close(t.oldReg)
	p.Close(t.nullReg)
	p.Close(t.rootReg)
}

// emitHideKernel lets go of the host's proc and sysfs, which stay mounted somewhere below a root that was only moved:
// as long as a whole one can be seen, the kernel lets a user namespace within the container mount its own, without
// what is masked.
func (t *Tree) emitHideKernel(p *launch.Program) {
	for _, dir := range kernelMounts() {
		p.Step("let go of the host's " + dir)
		done := p.Label()
		p.Call(unix.SYS_UMOUNT2, p.Str(dir), launch.N(unix.MNT_DETACH)).Accept(unix.EINVAL, unix.EPERM, unix.ENOENT, unix.EACCES).Then(done)
		p.Call(unix.SYS_MOUNT, p.Str("tmpfs"), p.Str(dir), p.Str("tmpfs"), launch.N(0), launch.N(0)).Accept(unix.ENOENT, unix.EACCES)
		p.Bind(done)
	}
	p.Call(unix.SYS_FCHDIR, t.rootReg.Arg())
}

// kernelMounts are where the host has proc and sysfs, inner ones first.
func kernelMounts() []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var list []string
	for line := range strings.Lines(string(data)) {
		left, right, ok := strings.Cut(line, " - ")
		f := strings.Fields(left)
		if kind, _, _ := strings.Cut(right, " "); ok && len(f) > 4 && (kind == "proc" || kind == "sysfs") {
			// Spaces and their like are written in octal.
			dir := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4])
			list = append([]string{dir}, list...)
		}
	}
	return list
}

// unique leaves out what names the same path again.
func unique(paths []string) []string {
	var list []string
	for _, s := range paths {
		if s = "/" + clean(s); !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// openPresent opens a path of the container; it goes on at next if that isn't there, or can't be seen anyway.
func (t *Tree) openPresent(p *launch.Program, name string, next launch.Label) launch.Reg {
	return p.Open(t.rootReg, clean(name), unix.O_PATH).Accept(unix.ENOENT, unix.ENOTDIR, unix.EACCES).Else(next).New()
}

func (t *Tree) emitReadonly(p *launch.Program, name string) {
	p.Step("make " + name + " read-only")
	next := p.Label()
	at := t.openPresent(p, name, next)
	r := p.Call(unix.SYS_OPEN_TREE, at.Arg(), p.Str(""), launch.N(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)).New()
	setattr(p, r.Arg(), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	p.Call(unix.SYS_MOVE_MOUNT, r.Arg(), p.Str(""), at.Arg(), p.Str(""), launch.N(moveEmpty))
	p.Close(r)
	p.Close(at)
	p.Bind(next)
}

// emitMask hides a path: a directory under an empty read-only tmpfs (one for all of them, masks), anything else
// under the null device, whose descriptor was checked.
func (t *Tree) emitMask(p *launch.Program, name string, masks launch.Reg) {
	p.Step("mask " + name)
	next, file, have := p.Label(), p.Label(), p.Label()
	at := t.openPresent(p, name, next)
	r := p.Reg()
	const clone = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH
	st := statx(p, at.Arg(), "")
	p.Equal(p.Load32(st, statxMode, unix.S_IFMT).Arg(), launch.N(unix.S_IFDIR), unix.ENOTDIR).Accept(unix.ENOTDIR).Else(file)
	p.Call(unix.SYS_OPEN_TREE, masks.Arg(), p.Str(""), launch.N(clone)).To(r).Then(have).Accept(unix.EBADF)
	// The first directory: its mount is what the others are clones of, since only an attached mount can be cloned.
	m := mount{opts: options{set: unix.MOUNT_ATTR_RDONLY}}
	m.Type, m.Source = "tmpfs", "tmpfs"
	m.opts.data = []string{"mode=755", "nr_blocks=1", "nr_inodes=1"}
	first := t.emitFS(p, &m)
	p.Set(masks, first.Arg())
	p.Call(unix.SYS_MOVE_MOUNT, first.Arg(), p.Str(""), at.Arg(), p.Str(""), launch.N(moveEmpty))
	p.Close(at)
	p.Goto(next)
	p.Bind(file)
	p.Call(unix.SYS_OPEN_TREE, t.nullReg.Arg(), p.Str(""), launch.N(clone)).To(r)
	p.Bind(have)
	p.Call(unix.SYS_MOVE_MOUNT, r.Arg(), p.Str(""), at.Arg(), p.Str(""), launch.N(moveEmpty))
	p.Close(r)
	p.Close(at)
	p.Bind(next)
}

// BindConsole adds the steps that make a terminal's slave the tree's /dev/console.
func (t *Tree) BindConsole(p *launch.Program, slave launch.Reg) {
	target := t.ensure(p, "dev/console", false)
	p.Step("bind the terminal to /dev/console")
	r := p.Call(unix.SYS_OPEN_TREE, slave.Arg(), p.Str(""), launch.N(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)).New()
	p.Call(unix.SYS_MOVE_MOUNT, r.Arg(), p.Str(""), target.Arg(), p.Str(""), launch.N(moveEmpty))
	p.Close(r)
	p.Close(target)
}
