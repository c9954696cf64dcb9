package rootfs

import (
	"path"
	"strings"

	"cale/runtime/launch"

	"golang.org/x/sys/unix"
)

// ensure gives a register with a descriptor of a path in the root. What is missing is made: directories, and for
// the last part a file unless isDir. Each name is resolved in the root at that moment, after all earlier mounts, and
// made below the descriptor of its parent: there is no string the image could bend.
func (t *Tree) ensure(p *launch.Program, dest string, isDir bool) launch.Reg {
	return t.ensurePlace(p, dest, isDir, false)
}

// lastLink is the flag of open(2) that takes a link at a path's end as itself.
func lastLink(nofollow bool) int {
	if nofollow {
		return unix.O_NOFOLLOW
	}
	return 0
}

// ensurePlace is ensure that may take a link at the path's end as what is to be mounted on.
func (t *Tree) ensurePlace(p *launch.Program, dest string, isDir, nofollow bool) launch.Reg {
	r := p.Reg()
	if dest == "" || dest == "." {
		p.Call(unix.SYS_FCNTL, t.rootReg.Arg(), launch.N(unix.F_DUPFD_CLOEXEC), launch.N(3)).To(r)
		return r
	}
	switch {
	case t.covered(dest):
	case nofollow:
		dest = path.Join(t.canonical(path.Dir(dest)), path.Base(dest))
	default:
		dest = t.canonical(dest)
	}
	done := p.Label()
	p.Open(t.rootReg, dest, unix.O_PATH|lastLink(nofollow)).To(r).Then(done).Accept(unix.ENOENT)
	parts := strings.Split(dest, "/")
	parent := t.rootReg
	for i := range parts {
		prefix := strings.Join(parts[:i+1], "/")
		last := i == len(parts)-1
		cur, have := r, p.Label()
		if !last {
			cur = p.Reg()
			p.Open(t.rootReg, prefix, unix.O_PATH).To(cur).Then(have).Accept(unix.ENOENT)
		}
		if !last || isDir {
			p.Call(unix.SYS_MKDIRAT, parent.Arg(), p.Str(parts[i]), launch.N(0o755)).Accept(unix.EEXIST)
		} else {
			p.Call(unix.SYS_MKNODAT, parent.Arg(), p.Str(parts[i]), launch.N(unix.S_IFREG|0o755), launch.N(0)).Accept(unix.EEXIST)
		}
		p.Open(t.rootReg, prefix, unix.O_PATH|lastLink(last && nofollow)).To(cur)
		p.Bind(have)
		if i > 0 {
			p.Close(parent)
		}
		parent = cur
	}
	p.Bind(done)
	return r
}

// ensurePlain is ensure for proc and sysfs, which must be mounted on a directory that no link leads to: the rest of
// the container's protection (masked paths, checks on /proc) relies on where they are.
func (t *Tree) ensurePlain(p *launch.Program, m *mount) launch.Reg {
	parent := t.rootReg
	if dir := path.Dir(m.dest); dir != "." {
		parent = t.ensure(p, dir, true)
	}
	base := path.Base(m.dest)
	p.Call(unix.SYS_MKDIRAT, parent.Arg(), p.Str(base), launch.N(0o755)).Accept(unix.EEXIST)
	p.Step("/" + m.dest + " must be mounted on ordinary directory")
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	return p.Call(unix.SYS_OPENAT2, parent.Arg(), p.Str(base), launch.Copy(p, how), launch.N(unix.SizeofOpenHow)).New()
}

// Mkdir adds steps that make a directory of the root, with its parents.
func (t *Tree) Mkdir(p *launch.Program, dest string) {
	p.Step("make the directory " + dest)
	p.Close(t.ensure(p, clean(dest), true))
}

func (t *Tree) emitDevices(p *launch.Program) {
	if len(t.nodes) == 0 {
		return
	}
	var dir launch.Reg
	opened := ""
	for i := range t.nodes {
		n := &t.nodes[i]
		p.Step("make the device /" + n.path)
		if n.src != nil {
			r := t.tree(p, n.src)
			setattr(p, r.Arg(), "", unix.AT_EMPTY_PATH, unix.MountAttr{
				Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, Propagation: unix.MS_SLAVE})
			target := t.ensure(p, n.path, false)
			p.Call(unix.SYS_MOVE_MOUNT, r.Arg(), p.Str(""), target.Arg(), p.Str(""), launch.N(moveEmpty))
			p.Close(r)
			p.Close(target)
			continue
		}
		if d := path.Dir(n.path); d != opened || i == 0 {
			if opened != "" {
				p.Close(dir)
			}
			opened = d
			dir = t.ensure(p, d, true)
			p.Step("make the device /" + n.path)
		}
		t.emitNode(p, n, dir)
	}
	if opened != "" {
		p.Close(dir)
	}
	if !t.ownDev() {
		return
	}
	p.Step("make the links in /dev")
	dev := t.ensure(p, "dev", true)
	for _, l := range devLinks {
		p.Call(unix.SYS_SYMLINKAT, p.Str(l.target), dev.Arg(), p.Str(l.name)).Accept(unix.EEXIST)
	}
	p.Close(dev)
}

// emitNode makes a device node. One that is there already is left alone (it may be the host's), but must be the
// same device.
func (t *Tree) emitNode(p *launch.Program, n *node, dir launch.Reg) {
	base := path.Base(n.path)
	exists, done := p.Label(), p.Label()
	made := p.Label()
	p.Call(unix.SYS_MKNODAT, dir.Arg(), p.Str(base), launch.N(n.mode), launch.N(n.dev)).Then(made).Accept(unix.EEXIST).Else(exists)
	p.Bind(exists)
	p.Step("/" + n.path + " exists and is another kind of file")
	st := statx(p, dir.Arg(), base)
	p.Equal(p.Load32(st, statxMode, unix.S_IFMT).Arg(), launch.N(n.mode&unix.S_IFMT), unix.EEXIST)
	if n.mode&unix.S_IFMT != unix.S_IFIFO {
		p.Equal(p.Load32(st, statxMajor, ^uint32(0)).Arg(), launch.N(unix.Major(n.dev)), unix.EEXIST)
		p.Equal(p.Load32(st, statxMinor, ^uint32(0)).Arg(), launch.N(unix.Minor(n.dev)), unix.EEXIST)
	}
	p.Goto(done)
	p.Bind(made)
	if n.uid|n.gid != 0 {
		p.Call(unix.SYS_FCHOWNAT, dir.Arg(), p.Str(base), launch.N(n.uid), launch.N(n.gid), launch.N(unix.AT_SYMLINK_NOFOLLOW))
	}
	p.Bind(done)
}
