package runtime

import (
	"fmt"
	"os"
	"unsafe"

	"cale/runtime/launch"
	"cale/runtime/linux"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// emitTerminal opens a terminal in the devpts of root (a register with a directory, or the process's own root if it
// is negative), sends its master to the parent, and returns the register with the slave. The slave is asked of the
// master: no name under /dev/pts is trusted. A master that is none fails at the first ioctl.
func (pr *process) emitTerminal(p *launch.Program, root launch.Reg) launch.Reg {
	p.Step("open a terminal in the container's /dev/pts")
	how := unix.OpenHow{Flags: unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	dir, name := atCwd, "/dev/pts/ptmx"
	if root >= 0 {
		dir, name = root.Arg(), "dev/pts/ptmx"
		how.Resolve |= unix.RESOLVE_IN_ROOT
	}
	master := p.Call(unix.SYS_OPENAT2, dir, p.Str(name), launch.Copy(p, how), launch.N(unix.SizeofOpenHow)).New()
	p.Call(unix.SYS_IOCTL, master.Arg(), launch.N(unix.TIOCSPTLCK), launch.Ptr(p.Mem(8)))
	slave := p.Call(unix.SYS_IOCTL, master.Arg(), launch.N(unix.TIOCGPTPEER), launch.N(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)).New()
	if size := pr.spec.ConsoleSize; size != nil {
		ws := unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)}
		p.Call(unix.SYS_IOCTL, master.Arg(), launch.N(unix.TIOCSWINSZ), launch.Copy(p, ws))
	}
	p.Step("give the terminal to the user")
	p.Call(unix.SYS_FCHOWN, slave.Arg(), launch.N(pr.spec.User.UID), launch.N(-1))
	p.Step("send the terminal to the caller")
	p.SyncFD(syncConsole, master)
	p.Close(master)
	return slave
}

// emitControl makes a terminal the process's own, with descriptors 0 to 2.
func emitControl(p *launch.Program, slave launch.Reg) {
	p.Step("make the terminal the controlling one")
	r := p.Call(unix.SYS_FCNTL, slave.Arg(), launch.N(unix.F_DUPFD_CLOEXEC), launch.N(10)).New()
	for i := range 3 {
		p.Call(unix.SYS_DUP3, r.Arg(), launch.N(i), launch.N(0))
	}
	p.Call(unix.SYS_IOCTL, launch.N(0), launch.N(unix.TIOCSCTTY), launch.N(0))
	p.Close(r)
	p.Close(slave)
}

// terminalTarget is where a terminal's master goes.
type terminalTarget struct {
	socket string
	give   func(*os.File)
}

// check says whether a process and its options agree about a terminal.
func (t terminalTarget) check(ps *specs.Process) error {
	switch {
	case ps.Terminal && t.socket == "" && t.give == nil:
		return fmt.Errorf("cannot allocate tty if runc will detach without setting console socket")
	case !ps.Terminal && t.socket != "":
		return fmt.Errorf("cannot use console socket if runc will not detach or allocate tty")
	}
	return nil
}

// deliver hands the master over.
func (t terminalTarget) deliver(master *os.File) error {
	if master == nil {
		return fmt.Errorf("the terminal's master did not arrive")
	}
	if t.socket == "" {
		t.give(master)
		return nil
	}
	defer master.Close()
	if err := linux.SendFD(t.socket, []byte("/dev/ptmx"), int(master.Fd())); err != nil {
		return fmt.Errorf("console socket: %w", err)
	}
	return nil
}

// emitLoopback brings up the loopback interface of a new network namespace.
func emitLoopback(p *launch.Program) {
	p.Step("bring up the loopback interface")
	s := p.Call(unix.SYS_SOCKET, launch.N(unix.AF_INET), launch.N(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), launch.N(0)).New()
	ifreq := p.Mem(40)
	copy(ifreq, "lo")
	*(*uint16)(unsafe.Pointer(&ifreq[unix.IFNAMSIZ])) = unix.IFF_UP | unix.IFF_RUNNING
	p.Call(unix.SYS_IOCTL, s.Arg(), launch.N(unix.SIOCSIFFLAGS), launch.Ptr(ifreq))
	p.Close(s)
}
