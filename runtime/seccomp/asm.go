package seccomp

import "golang.org/x/sys/unix"

// asm builds a program from its end: classic BPF jumps forward only, so every target is known when a jump to it is
// written. Labels are counted from the end; the jump that doesn't reach (offsets have 8 bits) goes through a JA.
type asm struct {
	code []unix.SockFilter // reversed
	rets map[uint32]label
}

// label is an instruction's place in asm.code.
type label int32

const reach = 255

func (a *asm) emit(code uint16, jt, jf uint8, k uint32) label {
	a.code = append(a.code, unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k})
	return label(len(a.code) - 1)
}

// distance is how many instructions lie between the next one to be written and l.
func (a *asm) distance(l label) int { return len(a.code) - int(l) - 1 }

// ret returns from the filter; one instruction serves all jumps that reach it.
func (a *asm) ret(action uint32) label {
	// Some room is left: what is written before the jump may move it away.
	if l, ok := a.rets[action]; ok && a.distance(l) < reach-20 {
		return l
	}
	l := a.emit(unix.BPF_RET|unix.BPF_K, 0, 0, action)
	a.rets[action] = l
	return l
}

// next makes l the instruction that follows the next one written.
func (a *asm) next(l label) {
	if d := a.distance(l); d != 0 {
		a.emit(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(d))
	}
}

// branch compares the loaded word with k (op is BPF_JEQ, BPF_JGE, BPF_JGT) and goes to yes or no.
func (a *asm) branch(op uint16, k uint32, yes, no label) label {
	if yes == no {
		return yes
	}
	yes, no = a.near(yes), a.near(no)
	// A JA for the one may have moved the other out of reach.
	yes = a.near(yes)
	return a.emit(unix.BPF_JMP|unix.BPF_K|op, uint8(a.distance(yes)), uint8(a.distance(no)), k)
}

// near returns a label in reach that leads to l.
func (a *asm) near(l label) label {
	d := a.distance(l)
	if d < reach {
		return l
	}
	if in := a.code[l]; in.Code == unix.BPF_RET|unix.BPF_K {
		return a.ret(in.K)
	}
	return a.emit(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(d))
}

// load reads a word of struct seccomp_data and goes on at l.
func (a *asm) load(offset uint32, l label) label {
	a.next(l)
	return a.emit(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, offset)
}

// and masks the loaded word and goes on at l.
func (a *asm) and(mask uint32, l label) label {
	if mask == 0xffffffff {
		return l
	}
	a.next(l)
	return a.emit(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0, 0, mask)
}

// span is where a range of numbers, up to the next span's first, goes.
type span struct {
	first  uint32
	target label
}

// search finds the loaded number's span in log2(n) steps. The spans are sorted and the first one starts at 0.
func (a *asm) search(spans []span) label {
	if len(spans) == 1 {
		return spans[0].target
	}
	mid := len(spans) / 2
	high := a.search(spans[mid:])
	low := a.search(spans[:mid])
	return a.branch(unix.BPF_JGE, spans[mid].first, high, low)
}

// program returns the instructions from the label on, in order.
func (a *asm) program(entry label) []unix.SockFilter {
	a.next(entry)
	p := make([]unix.SockFilter, len(a.code))
	for i, in := range a.code {
		p[len(p)-1-i] = in
	}
	return p
}
