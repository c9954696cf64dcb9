package launch

import (
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// Explain writes the program as text: one line for each step, under the name of the steps it belongs to.
func (p *Program) Explain(w io.Writer) error {
	if err := p.link(); err != nil {
		return err
	}
	last := int16(-1)
	for i := range p.ops {
		o := &p.ops[i]
		if o.name != last {
			last = o.name
			if _, err := fmt.Fprintf(w, "%s:\n", p.names[o.name]); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "%6d  %s\n", i, o.explain(i)); err != nil {
			return err
		}
	}
	return nil
}

func (o *op) explain(i int) string {
	s := ""
	if o.out >= 0 {
		s = fmt.Sprintf("r%d = ", o.out)
	}
	s += callName(o.nr) + "("
	n := len(o.args)
	for n > 0 && o.args[n-1] == 0 && o.regs&(1<<(n-1)) == 0 {
		n--
	}
	for k := range n {
		if k > 0 {
			s += ", "
		}
		switch v := o.args[k]; {
		case o.regs&(1<<k) != 0:
			s += fmt.Sprintf("r%d", v)
		case int64(v) < 0 && int64(v) > -4096:
			s += fmt.Sprint(int64(v))
		case v > 1<<32:
			s += "&" // an address
		default:
			s += fmt.Sprintf("%#x", v)
		}
	}
	s += ")"
	if o.cond == condWant {
		s += fmt.Sprintf(" must be %d", o.want)
	}
	if int(o.onOK) != i+1 {
		s += fmt.Sprintf(" -> %d", o.onOK)
	}
	if o.anyErr {
		s += fmt.Sprintf(", any error -> %d", o.onErr)
	}
	for _, e := range o.accept {
		if e != 0 {
			s += fmt.Sprintf(", %s -> %d", unix.ErrnoName(syscall.Errno(e)), o.onErr)
		}
	}
	return s
}

// callName is the name of a system call that programs use, or its number.
func callName(nr uint32) string {
	switch nr {
	case opSet:
		return "set"
	case opFail:
		return "fail"
	case opLoad32:
		return "load"
	case opStore32:
		return "store"
	case opEqual:
		return "equal"
	case opNop:
		return "go"
	}
	for _, c := range [...]struct {
		nr   uint32
		name string
	}{
		{unix.SYS_CAPSET, "capset"}, {unix.SYS_CHDIR, "chdir"}, {unix.SYS_CHROOT, "chroot"}, {unix.SYS_CLONE3, "clone3"},
		{unix.SYS_CLOSE, "close"}, {unix.SYS_CLOSE_RANGE, "close_range"}, {unix.SYS_DUP3, "dup3"}, {unix.SYS_EXECVE, "execve"},
		{unix.SYS_EXIT_GROUP, "exit_group"}, {unix.SYS_FACCESSAT, "faccessat"}, {unix.SYS_FACCESSAT2, "faccessat2"},
		{unix.SYS_FCHDIR, "fchdir"}, {unix.SYS_FCHOWN, "fchown"}, {unix.SYS_FCHOWNAT, "fchownat"}, {unix.SYS_FCNTL, "fcntl"},
		{unix.SYS_FSCONFIG, "fsconfig"}, {unix.SYS_FSMOUNT, "fsmount"}, {unix.SYS_FSOPEN, "fsopen"}, {unix.SYS_FSPICK, "fspick"},
		{unix.SYS_GETCWD, "getcwd"}, {unix.SYS_IOCTL, "ioctl"}, {unix.SYS_IOPRIO_SET, "ioprio_set"}, {unix.SYS_KEYCTL, "keyctl"},
		{unix.SYS_MKDIRAT, "mkdirat"}, {unix.SYS_MKNODAT, "mknodat"}, {unix.SYS_MOUNT, "mount"},
		{unix.SYS_MOUNT_SETATTR, "mount_setattr"}, {unix.SYS_MOVE_MOUNT, "move_mount"}, {unix.SYS_OPENAT, "openat"},
		{unix.SYS_OPENAT2, "openat2"}, {unix.SYS_OPEN_TREE, "open_tree"}, {unix.SYS_PERSONALITY, "personality"},
		{unix.SYS_PIVOT_ROOT, "pivot_root"}, {unix.SYS_PRCTL, "prctl"}, {unix.SYS_PRLIMIT64, "prlimit64"}, {unix.SYS_READ, "read"},
		{unix.SYS_RT_SIGACTION, "rt_sigaction"}, {unix.SYS_RT_SIGPROCMASK, "rt_sigprocmask"},
		{unix.SYS_SCHED_SETAFFINITY, "sched_setaffinity"}, {unix.SYS_SCHED_SETATTR, "sched_setattr"}, {unix.SYS_SECCOMP, "seccomp"},
		{unix.SYS_SENDMSG, "sendmsg"}, {unix.SYS_SETDOMAINNAME, "setdomainname"}, {unix.SYS_SETGROUPS, "setgroups"},
		{unix.SYS_SETHOSTNAME, "sethostname"}, {unix.SYS_SETNS, "setns"}, {unix.SYS_SETRESGID, "setresgid"},
		{unix.SYS_SETRESUID, "setresuid"}, {unix.SYS_SETSID, "setsid"}, {unix.SYS_SET_MEMPOLICY, "set_mempolicy"},
		{unix.SYS_SOCKET, "socket"}, {unix.SYS_STATX, "statx"}, {unix.SYS_SYMLINKAT, "symlinkat"}, {unix.SYS_UMASK, "umask"},
		{unix.SYS_UMOUNT2, "umount2"}, {unix.SYS_UNSHARE, "unshare"}, {unix.SYS_WRITE, "write"},
	} {
		if c.nr == nr {
			return c.name
		}
	}
	return fmt.Sprintf("syscall %d", nr)
}
