package launch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"cale/runtime/linux"

	"golang.org/x/sys/unix"
)

// Error is a failed step.
type Error struct {
	Step  string
	Errno syscall.Errno
}

func (e *Error) Error() string { return e.Step + ": " + e.Errno.Error() }

// Unwrap makes errors.Is(err, syscall.ENOENT) work.
func (e *Error) Unwrap() error { return e.Errno }

// ErrDied is a child that went away before its execve without a word, so was killed.
var ErrDied = errors.New("the process was killed before it could start")

// Config says how to run a program.
type Config struct {
	Program *Program
	// Flags are the CLONE_NEW* of the namespaces the child is born in.
	Flags uint64
	// Cgroup is the descriptor of a cgroup2 directory the child is born in, or nil.
	Cgroup *os.File
	// PidNS is a namespace file, or a pidfd of a process, whose pid namespace the child is born in, or nil.
	PidNS *os.File
	// Sync is called at each synchronisation point. The child goes on when it returns without error, and is killed
	// otherwise.
	Sync func(p *Proc, at Point) error
	// Until is the synchronisation point after which Run returns; 0 is none: Run returns when the child has
	// executed its program.
	Until int
}

// Point is where the child waits for its parent.
type Point struct {
	// ID is the number the program gave the point.
	ID int
	// Sent is the descriptor that came along, for the callee to close, or nil.
	Sent *os.File
	// Value is the register that came along.
	Value uint32
}

// Proc is a started process: a child of the caller.
type Proc struct {
	Pid   int
	PidFD *os.File
}

// Kill ends the process and reaps it.
func (p *Proc) Kill() {
	unix.PidfdSendSignal(int(p.PidFD.Fd()), unix.SIGKILL, nil, 0)
	p.reap()
	p.PidFD.Close()
}

// reap waits for the process and forgets its status.
func (p *Proc) reap() {
	for {
		if err := unix.Waitid(unix.P_PIDFD, int(p.PidFD.Fd()), nil, unix.WEXITED, nil); err != unix.EINTR {
			return
		}
	}
}

// Run clones a child that walks the program, serves its synchronisation points, and returns when it has executed
// (or has reached c.Until). A child that fails is reaped, and the error names the step.
func Run(ctx context.Context, c Config) (*Proc, error) {
	p := c.Program
	if err := p.link(); err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	sock := fds[0]
	defer unix.Close(sock)
	p.regs[ReportReg], p.regs[callerReg] = uintptr(fds[1]), uintptr(sock)
	pidfd := p.Mem(4) // a variable would move with the stack, and the kernel write to where it was
	ca := &cloneArgs{
		flags:      c.Flags | unix.CLONE_PIDFD,
		pidfd:      uint64(Ptr(pidfd).Addr()),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if c.Cgroup != nil {
		ca.flags |= unix.CLONE_INTO_CGROUP
		ca.cgroup = uint64(c.Cgroup.Fd())
	}
	pid, err := cloneIn(c.PidNS, ca, p.ops, p.regs)
	unix.Close(fds[1])
	runtime.KeepAlive(c.Cgroup)
	if err != nil {
		return nil, err
	}
	proc := &Proc{Pid: pid, PidFD: os.NewFile(uintptr(binary.NativeEndian.Uint32(pidfd)), "pidfd")}
	stop := context.AfterFunc(ctx, func() { unix.Shutdown(sock, unix.SHUT_RDWR) })
	err = serve(sock, proc, c)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		proc.Kill()
		return nil, err
	}
	return proc, nil
}

// cloneIn forks, on a thread that has the wished pid namespace for its children in the meantime.
func cloneIn(pidNS *os.File, ca *cloneArgs, ops []op, regs *[maxRegs]uintptr) (int, error) {
	var pid uintptr
	fork := func() error {
		syscall.ForkLock.Lock()
		defer syscall.ForkLock.Unlock()
		var errno syscall.Errno
		if pid, errno = clone(ca, ops, regs); errno != 0 {
			return fmt.Errorf("clone the process: %w", errno)
		}
		return nil
	}
	if pidNS == nil {
		err := fork()
		return int(pid), err
	}
	err := linux.InNamespace(pidNS, unix.CLONE_NEWPID, fork)
	return int(pid), err
}

// serve answers the child's messages.
func serve(sock int, proc *Proc, c Config) error {
	for {
		m, sent, err := receive(sock)
		if err != nil {
			return fmt.Errorf("read from the child: %w", err)
		}
		switch m.kind {
		case 0: // end of file: executed or killed
			if c.Until != 0 {
				return ErrDied
			}
			return nil
		case msgFail:
			return &Error{Step: c.Program.name(int(m.a)), Errno: syscall.Errno(m.b)}
		case msgPid:
			// The first child was only there to fork the one that counts.
			if sent == nil {
				return errors.New("the child's child has no pidfd")
			}
			proc.reap()
			proc.PidFD.Close()
			proc.PidFD = sent
			if proc.Pid, err = pidOf(sent); err != nil {
				return fmt.Errorf("find the process: %w", err)
			}
		case msgSync:
			if c.Sync != nil {
				if err := c.Sync(proc, Point{ID: int(m.a), Sent: sent, Value: m.b}); err != nil {
					return err
				}
			}
			if _, err := unix.Write(sock, []byte{1}); err != nil && err != unix.EPIPE && err != unix.ECONNRESET {
				return fmt.Errorf("write to the child: %w", err)
			}
			if int(m.a) == c.Until {
				return nil
			}
		}
	}
}

func receive(sock int) (m message, sent *os.File, err error) {
	var buf [messageSize]byte
	var oob [64]byte
	for {
		n, oobn, _, _, err := unix.Recvmsg(sock, buf[:], oob[:], unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err == unix.ECONNRESET {
			return m, nil, nil // closed with a byte of ours unread
		}
		if err != nil || n == 0 {
			return m, nil, err
		}
		if n != messageSize {
			return m, nil, fmt.Errorf("message of %d bytes", n)
		}
		m = *(*message)(unsafe.Pointer(&buf))
		if oobn > 0 {
			if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) > 0 {
				if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) > 0 {
					sent = os.NewFile(uintptr(fds[0]), "sent")
				}
			}
		}
		return m, sent, nil
	}
}

// Sync adds a point at which the child tells the parent and waits for its answer. A parent that has died ends the
// child.
func (p *Program) Sync(point int) {
	p.tell(message{kind: msgSync, a: uint32(point)})
	p.await()
}

// SyncValue is Sync that sends a register along.
func (p *Program) SyncValue(point int, r Reg) {
	m := Copy(p, message{kind: msgSync, a: uint32(point)})
	p.Store32(m, 8, r)
	p.Call(unix.SYS_WRITE, ReportReg.Arg(), m, N(messageSize))
	p.await()
}

func (p *Program) tell(m message) {
	p.Call(unix.SYS_WRITE, ReportReg.Arg(), Copy(p, m), N(messageSize))
}

func (p *Program) await() {
	p.Call(unix.SYS_READ, ReportReg.Arg(), Ptr(p.Mem(8)), N(1)).Want(1)
}

// SyncFD is Sync that sends a descriptor along.
func (p *Program) SyncFD(point int, fd Reg) {
	p.send(message{kind: msgSync, a: uint32(point)}, fd)
	p.await()
}

// send sends a message with a descriptor.
func (p *Program) send(m message, fd Reg) {
	iov := p.Mem(16)
	putAddr(iov, Copy(p, m))
	*(*uint64)(unsafe.Pointer(&iov[8])) = messageSize
	control := p.Mem(unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	h.SetLen(unix.CmsgLen(4))
	p.Store32(Ptr(control), unix.CmsgLen(0), fd)
	hdr := p.Mem(int(unsafe.Sizeof(unix.Msghdr{})))
	mh := (*unix.Msghdr)(unsafe.Pointer(&hdr[0]))
	mh.Iov = (*unix.Iovec)(unsafe.Pointer(&iov[0]))
	mh.SetIovlen(1)
	mh.Control = &control[0]
	mh.SetControllen(len(control))
	p.Call(unix.SYS_SENDMSG, ReportReg.Arg(), Ptr(hdr), N(0))
}

// Fork adds a fork with namespace flags. The child goes on with the program; the parent sends its parent the pidfd
// (a pid would be a number of its own pid namespace) and ends. The new process is a child of whoever runs the
// program, too.
func (p *Program) Fork(flags uint64) {
	cell := Ptr(p.Mem(8))
	ca := cloneArgs{flags: flags | unix.CLONE_PARENT | unix.CLONE_PIDFD, pidfd: cell.Addr()}
	child, parent := p.Label(), p.Label()
	p.Call(unix.SYS_CLONE3, Copy(p, ca), N(unsafe.Sizeof(ca))).Then(parent).IfNonzero()
	p.Goto(child)
	p.Bind(parent)
	p.send(message{kind: msgPid}, p.Load32(cell, 0, ^uint32(0)))
	p.Call(unix.SYS_EXIT_GROUP, N(0))
	p.Bind(child)
}

// pidOf is the pid behind a pidfd, as this process's /proc numbers it.
func pidOf(fd *os.File) (int, error) {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(fd.Fd())))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(v))
			if err == nil && pid <= 0 {
				err = ErrDied
			}
			return pid, err
		}
	}
	return 0, errors.New("no pid in the descriptor's information")
}
