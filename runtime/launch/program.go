// Package launch starts processes by a syscall program: a flat list of system calls that the parent writes down and
// the child of one clone3 walks. A Go program can't run Go code between fork and execve, and executing itself again
// would cost a second start of the Go runtime; a list of numbers needs neither.
//
// The list has registers for results of earlier calls (descriptors, mostly), jumps that only go forward, and errors
// that a step may accept. It is data: it can be printed and tested without being run.
package launch

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reg is a register: a cell that takes a call's result and can be an argument of later calls.
type Reg int16

// Label is a place further on in the program.
type Label int32

// Arg is an argument of a call: a value or a register.
type Arg struct {
	v   uintptr
	reg bool
}

// N is an argument that is a plain number.
func N[T ~int | ~int32 | ~int64 | ~uint | ~uint32 | ~uint64 | ~uintptr | ~uint16 | ~uint8](v T) Arg {
	return Arg{v: uintptr(v)}
}

// Arg makes a register an argument.
func (r Reg) Arg() Arg { return Arg{v: uintptr(r), reg: true} }

const (
	maxRegs  = 16384 // each mount takes some
	firstOps = 2048  // the room for steps to begin with

	// ReportReg is the register with the descriptor to which failures are written.
	ReportReg Reg = 0
	// callerReg is the register with the caller's end of what that descriptor is one of.
	callerReg Reg = 1

	noReg Reg = -1
)

// Operations that are no system calls; their numbers are far above any.
const (
	opSet     = 1<<20 + iota // out = a
	opFail                   // fail with errno a
	opLoad32                 // out = *(*uint32)(a) & b
	opStore32                // *(*uint32)(a) = b
	opEqual                  // fail with errno c unless a == b
	opNop
)

// What decides about a call's result besides its errno.
const (
	condNone    = iota
	condWant    // the result must be want, else the step fails with EPIPE
	condNonzero // onOK is taken only if the result isn't 0
)

// op is one step. It holds addresses as numbers, of the program's memory. A program has some hundred steps, whose
// memory is fresh and so costs time: the fields are as small as can be.
type op struct {
	args   [6]uintptr
	nr     uint32
	want   uint32
	onOK   int32 // label, then index: where to go on success; 0 is the next step
	onErr  int32 // where to go on an accepted error; 0 is the next step
	name   int16 // index in Program.names
	out    Reg
	accept [4]uint8
	regs   uint8 // bit i: args[i] is a register
	cond   uint8
	anyErr bool
}

// Program is a list of steps under construction, or finished. It is used once, and freed by Free.
type Program struct {
	mem    memory
	ops    []op              // in mem
	regs   *[maxRegs]uintptr // in mem; of the child
	names  []string
	labels []int32 // label to index of the step after it; labels[0] is unused
	nregs  Reg
	err    error
	linked bool
}

// New returns an empty program.
func New() *Program {
	p := &Program{names: []string{"start"}, labels: make([]int32, 1, 64), nregs: 2}
	p.regs = (*[maxRegs]uintptr)(p.mem.take(maxRegs * unsafe.Sizeof(uintptr(0))))
	// With its copy of it, a child would wait forever for the answer of a caller that has died.
	p.Call(unix.SYS_CLOSE, callerReg.Arg())
	return p
}

// Free gives the program's memory back. Run doesn't need it any more when it has returned.
func (p *Program) Free() { p.mem.free(); p.ops, p.regs = nil, nil }

// Step names the steps that follow, for errors: "mount proc on /proc".
func (p *Program) Step(name string) { p.names = append(p.names, name) }

// Fail makes the finished program an error; the first one stays.
func (p *Program) Fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// Reg returns a register that nobody else has.
func (p *Program) Reg() Reg {
	if p.nregs == maxRegs {
		p.Fail(fmt.Errorf("launch: more than %d registers", maxRegs))
		return p.nregs - 1
	}
	p.nregs++
	return p.nregs - 1
}

// Mem returns n zeroed bytes, aligned to 8, that live as long as the program.
func (p *Program) Mem(n int) []byte { return unsafe.Slice((*byte)(p.mem.take(uintptr(n))), n) }

// Str is a NUL-terminated copy of s. A NUL within s makes the program an error.
func (p *Program) Str(s string) Arg {
	b := p.Mem(len(s) + 1)
	copy(b, s)
	for i := range s {
		if s[i] == 0 {
			p.Fail(fmt.Errorf("%s: string with a NUL byte: %q", p.names[len(p.names)-1], s))
		}
	}
	return Ptr(b)
}

// Strs is a NULL-terminated array of strings, as execve wants it.
func (p *Program) Strs(list []string) Arg {
	b := p.Mem(8 * (len(list) + 1))
	for i, s := range list {
		putAddr(b[8*i:], p.Str(s))
	}
	return Ptr(b)
}

// Copy is a copy of the memory of v, which holds no pointers that matter to Go.
func Copy[T any](p *Program, v T) Arg {
	n := int(unsafe.Sizeof(v))
	b := p.Mem(n)
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&v)), n))
	return Ptr(b)
}

// Ptr is the address of memory that came from Mem.
func Ptr(b []byte) Arg { return Arg{v: uintptr(unsafe.Pointer(unsafe.SliceData(b)))} }

// Addr is the number that an argument made by Str, Strs, Ptr or Copy stands for, to be stored in a structure.
func (a Arg) Addr() uint64 { return uint64(a.v) }

func putAddr(b []byte, a Arg) { *(*uintptr)(unsafe.Pointer(&b[0])) = a.v }

// Call adds a system call. What the returned step is to do with its result must be said before the next Call.
func (p *Program) Call(nr uintptr, args ...Arg) Op {
	o := op{nr: uint32(nr), out: noReg, name: int16(min(len(p.names)-1, 1<<15-1))}
	for i, a := range args {
		o.args[i] = a.v
		if a.reg {
			o.regs |= 1 << i
		}
	}
	if len(p.ops) == cap(p.ops) {
		n := max(2*cap(p.ops), firstOps)
		p.ops = append(unsafe.Slice((*op)(p.mem.take(uintptr(n)*unsafe.Sizeof(o))), n)[:0], p.ops...)
	}
	p.ops = append(p.ops, o)
	return Op{p: p, i: len(p.ops) - 1}
}

// Op is a step that was just added.
type Op struct {
	p *Program
	i int
}

func (o Op) op() *op { return &o.p.ops[o.i] }

// To puts the result in a register.
func (o Op) To(r Reg) Op { o.op().out = r; return o }

// New puts the result in a new register and returns it.
func (o Op) New() Reg {
	r := o.p.Reg()
	o.op().out = r
	return r
}

// Accept makes errors no failure: the program goes on, with the register unchanged.
func (o Op) Accept(errs ...syscall.Errno) Op {
	free := 0
	for i, e := range o.op().accept {
		if e != 0 {
			free = i + 1
		}
	}
	for _, e := range errs {
		if free == len(o.op().accept) {
			o.p.Fail(fmt.Errorf("launch: too many accepted errors"))
			return o
		}
		o.op().accept[free] = uint8(e)
		free++
	}
	return o
}

// AcceptAny makes no error a failure.
func (o Op) AcceptAny() Op { o.op().anyErr = true; return o }

// Else says where to go on after an accepted error.
func (o Op) Else(l Label) Op { o.op().onErr = int32(l); return o }

// Then says where to go on after success.
func (o Op) Then(l Label) Op { o.op().onOK = int32(l); return o }

// Want makes any other result a failure with EPIPE.
func (o Op) Want(v int) Op { o.op().cond, o.op().want = condWant, uint32(v); return o }

// IfNonzero restricts Then to results that aren't 0.
func (o Op) IfNonzero() Op { o.op().cond = condNonzero; return o }

// Label returns a label to be bound further on.
func (p *Program) Label() Label {
	p.labels = append(p.labels, -1)
	return Label(len(p.labels) - 1)
}

// Bind puts a label before the step that comes next.
func (p *Program) Bind(l Label) { p.labels[l] = int32(len(p.ops)) }

// Set gives a register a value.
func (p *Program) Set(r Reg, a Arg) Op { return p.Call(opSet, a).To(r) }

// Goto goes on at l.
func (p *Program) Goto(l Label) { p.Call(opNop).Then(l) }

// Error fails with e.
func (p *Program) Error(e syscall.Errno) { p.Call(opFail, N(e)) }

// Load32 puts the masked number at an address in a register.
func (p *Program) Load32(addr Arg, offset int, mask uint32) Reg {
	return p.Call(opLoad32, Arg{v: addr.v + uintptr(offset)}, N(mask)).New()
}

// Store32 stores a register at an address.
func (p *Program) Store32(addr Arg, offset int, r Reg) {
	p.Call(opStore32, Arg{v: addr.v + uintptr(offset)}, r.Arg())
}

// Equal fails with e unless a is b; Accept and Else apply to e.
func (p *Program) Equal(a, b Arg, e syscall.Errno) Op { return p.Call(opEqual, a, b, N(e)) }

// link turns labels into indexes. A jump must go forward, so that every program ends.
func (p *Program) link() error {
	if p.err != nil || p.linked {
		return p.err
	}
	p.linked = true
	for i := range p.ops {
		o := &p.ops[i]
		for _, j := range []*int32{&o.onOK, &o.onErr} {
			if *j == 0 {
				*j = int32(i + 1)
				continue
			}
			to := p.labels[*j]
			if to <= int32(i) {
				return fmt.Errorf("launch: step %d (%s) jumps to %d", i, p.names[o.name], to)
			}
			*j = to
		}
	}
	return nil
}

// Len is the number of steps.
func (p *Program) Len() int { return len(p.ops) }

// name is the name of a step by its index.
func (p *Program) name(i int) string {
	if i < 0 || i >= len(p.ops) {
		return "start"
	}
	return p.names[p.ops[i].name]
}

// Open adds an openat2 whose path, and every link on the way, is resolved with dir as the root.
func (p *Program) Open(dir Reg, path string, flags int) Op {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	return p.Call(unix.SYS_OPENAT2, dir.Arg(), p.Str(path), Copy(p, how), N(unix.SizeofOpenHow))
}

// Close closes a register's descriptor.
func (p *Program) Close(r Reg) { p.Call(unix.SYS_CLOSE, r.Arg()) }
