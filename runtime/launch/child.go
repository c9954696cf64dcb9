package launch

import (
	"syscall"
	"unsafe"

	"cale/runtime/linux"

	"golang.org/x/sys/unix"
)

// cloneArgs is struct clone_args of linux/sched.h, up to version 2 (Linux 5.7).
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// Messages from child to parent: kind, then two numbers.
type message struct {
	kind uint32
	a, b uint32
}

const (
	msgFail = 1 + iota // a: step, b: errno
	msgSync            // a: which
	msgPid             // with the pidfd of the process that goes on
)

const messageSize = 12

// maxAgain bounds how often an openat2 that met a change of the tree is repeated.
const maxAgain = 1000

// clone forks. In the child it walks the program and doesn't return.
//
//go:noinline
//go:norace
func clone(ca *cloneArgs, ops []op, regs *[maxRegs]uintptr) (pid uintptr, err syscall.Errno) {
	linux.BeforeFork()
	pid, err = rawClone(ca)
	if err != 0 || pid != 0 {
		linux.AfterFork()
		return pid, err
	}
	walk(ops, regs)
	return
}

//go:nosplit
//go:norace
func rawClone(ca *cloneArgs) (uintptr, syscall.Errno) {
	r, _, e := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(ca)), unsafe.Sizeof(*ca), 0)
	return r, e
}

// walk runs in the child, which has one thread, a copy of the parent's memory, and a Go runtime that must not be
// used: no allocation, no locks, no growing of the stack, no write barriers (hence numbers instead of pointers).
//
//go:nosplit
//go:norace
func walk(ops []op, regs *[maxRegs]uintptr) {
	linux.AfterForkInChild()
	i := 0
	for i < len(ops) {
		o := &ops[i]
		a0, a1, a2, a3, a4, a5 := o.args[0], o.args[1], o.args[2], o.args[3], o.args[4], o.args[5]
		if o.regs != 0 {
			if o.regs&1 != 0 {
				a0 = regs[a0&(maxRegs-1)]
			}
			if o.regs&2 != 0 {
				a1 = regs[a1&(maxRegs-1)]
			}
			if o.regs&4 != 0 {
				a2 = regs[a2&(maxRegs-1)]
			}
			if o.regs&8 != 0 {
				a3 = regs[a3&(maxRegs-1)]
			}
			if o.regs&16 != 0 {
				a4 = regs[a4&(maxRegs-1)]
			}
			if o.regs&32 != 0 {
				a5 = regs[a5&(maxRegs-1)]
			}
		}
		var r uintptr
		var e syscall.Errno
		switch o.nr {
		case opSet:
			r = a0
		case opFail:
			e = syscall.Errno(a0)
		case opLoad32:
			r = uintptr(*(*uint32)(addr(a0))) & a1
		case opStore32:
			*(*uint32)(addr(a0)) = uint32(a1)
		case opEqual:
			if a0 != a1 {
				e = syscall.Errno(a2)
			}
		case opNop:
		default:
			for again := 0; ; again++ {
				r, _, e = syscall.RawSyscall6(uintptr(o.nr), a0, a1, a2, a3, a4, a5)
				if e == syscall.EINTR {
					continue
				}
				// A mount or rename elsewhere makes the kernel unsure whether ".." stays in the root: it asks to try again.
				if e == syscall.EAGAIN && uintptr(o.nr) == unix.SYS_OPENAT2 && again < maxAgain {
					continue
				}
				break
			}
		}
		if e == 0 && o.cond == condWant && uint32(r) != o.want {
			e = syscall.EPIPE
		}
		if e == 0 {
			if o.out >= 0 {
				regs[o.out&(maxRegs-1)] = r
			}
			if o.cond == condNonzero && r == 0 {
				i++
			} else {
				i = int(o.onOK)
			}
			continue
		}
		if o.anyErr || (uint8(e) != 0 && (o.accept[0] == uint8(e) || o.accept[1] == uint8(e) || o.accept[2] == uint8(e) || o.accept[3] == uint8(e))) {
			i = int(o.onErr)
			continue
		}
		var m message
		m.kind = msgFail
		m.a = uint32(i)
		m.b = uint32(e)
		syscall.RawSyscall(unix.SYS_WRITE, regs[ReportReg], uintptr(unsafe.Pointer(&m)), messageSize)
		break
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 255, 0, 0)
	}
}

// addr turns a number back into the address it was; the memory belongs to Program.keep.
//
//go:nosplit
func addr(a uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&a)) }
