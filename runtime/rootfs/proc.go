package rootfs

import (
	"fmt"
	"strings"

	"cale/runtime/launch"

	"golang.org/x/sys/unix"
)

// checkProc refuses mounts that would replace what the runtime and the kernel's protections rely on: all of /proc, or
// a file of it but those that are known to be replaced by others' idea of the machine's size. Names alone are looked
// at here; guardProc sees where a mount really goes.
func (t *Tree) checkProc(m *mount) error {
	if m.dest == "proc" {
		if m.Type == "proc" || m.opts.bind && t.isProc(m.Source) {
			return nil
		}
		return fmt.Errorf("%q cannot be mounted because it is not of type proc", "/"+m.dest)
	}
	if !strings.HasPrefix(m.dest, "proc/") || replaceable(m.dest) {
		return nil
	}
	return fmt.Errorf("%q cannot be mounted because it is inside /proc", "/"+m.dest)
}

// replaceable are the files of /proc that may be mounted over.
func replaceable(dest string) bool {
	switch dest {
	case "proc/cpuinfo", "proc/diskstats", "proc/meminfo", "proc/stat", "proc/swaps", "proc/uptime", "proc/loadavg",
		"proc/slabinfo", "proc/net/dev", "proc/sys/kernel/ns_last_pid", "proc/sys/crypto/fips_enabled":
		return true
	}
	return false
}

// isProc reports whether a host path is the root of a proc file system.
func (t *Tree) isProc(source string) bool {
	const rootInode = 1 // PROC_ROOT_INO of linux/proc_fs.h
	var fs unix.Statfs_t
	var st unix.Stat_t
	source = t.abs(source)
	return unix.Statfs(source, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC && unix.Stat(source, &st) == nil && st.Ino == rootInode
}

// noteProc remembers which file system is the container's /proc.
func (t *Tree) noteProc(p *launch.Program, m *mount) {
	if m.dest != "proc" {
		return
	}
	st := statx(p, m.reg.Arg(), "")
	t.procMajor, t.procMinor = p.Load32(st, statxDevMajor, ^uint32(0)), p.Load32(st, statxDevMinor, ^uint32(0))
	t.hasProc = true
}

// guardProc refuses a mount on what turned out to be in the container's /proc: a link of the image may lead there.
func (t *Tree) guardProc(p *launch.Program, m *mount, target launch.Reg) {
	if !t.hasProc || m.dest == "proc" || replaceable(m.dest) {
		return
	}
	elsewhere := p.Label()
	st := statx(p, target.Arg(), "")
	p.Equal(p.Load32(st, statxDevMajor, ^uint32(0)).Arg(), t.procMajor.Arg(), unix.EXDEV).Accept(unix.EXDEV).Else(elsewhere)
	p.Equal(p.Load32(st, statxDevMinor, ^uint32(0)).Arg(), t.procMinor.Arg(), unix.EXDEV).Accept(unix.EXDEV).Else(elsewhere)
	p.Step(fmt.Sprintf("%q cannot be mounted because it is inside /proc", "/"+m.dest))
	p.Error(unix.EPERM)
	p.Bind(elsewhere)
}
