package cgroup

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// insn is struct bpf_insn: an eBPF instruction.
type insn struct {
	code uint8
	regs uint8 // destination, source << 4
	off  int16
	imm  int32
}

const (
	r0 = iota // result
	r1        // struct bpf_cgroup_dev_ctx
	r2        // kind: BPF_DEVCG_DEV_BLOCK 1, BPF_DEVCG_DEV_CHAR 2
	r3        // access that is not decided yet
	r4        // major
	r5        // minor
)

func load32(dst, src uint8, off int16) insn {
	return insn{unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM, dst | src<<4, off, 0}
}
func alu(op, dst uint8, imm int32) insn { return insn{unix.BPF_ALU | unix.BPF_K | op, dst, 0, imm} }
func movReg(dst, src uint8) insn {
	return insn{unix.BPF_ALU | unix.BPF_X | unix.BPF_MOV, dst | src<<4, 0, 0}
}
func jumpIf(op, reg uint8, imm int32) insn {
	return insn{unix.BPF_JMP | unix.BPF_K | op, reg, 0, imm}
}
func result(v int32) []insn {
	return []insn{alu(unix.BPF_MOV, r0, v), {unix.BPF_JMP | unix.BPF_EXIT, 0, 0, 0}}
}

// deviceProgram decides on one access to a device as v2 has it done: 1 allows, 0 refuses. Rules are tried from the
// last to the first; each settles the part of the access it speaks of, refusing at once or striking it from r3.
func deviceProgram(rules []rule) []insn {
	p := []insn{
		load32(r2, r1, 0), // access << 16 | kind
		movReg(r3, r2),
		alu(unix.BPF_AND, r2, 0xffff),
		alu(unix.BPF_RSH, r3, 16),
		load32(r4, r1, 4),
		load32(r5, r1, 8),
	}
	for i := len(rules) - 1; i >= 0; i-- {
		r := rules[i]
		if r.access == anyAccess && r.kind == 'a' && r.major < 0 && r.minor < 0 {
			return append(p, result(verdict(r.allow))...) // nothing before it can matter
		}
		var b []insn
		var next []int // jumps to the next rule
		jump := func(in insn) {
			next = append(next, len(b))
			b = append(b, in)
		}
		if r.kind != 'a' {
			kind := int32(2)
			if r.kind == 'b' {
				kind = 1
			}
			jump(jumpIf(unix.BPF_JNE, r2, kind))
		}
		if r.major >= 0 {
			jump(jumpIf(unix.BPF_JNE, r4, int32(r.major)))
		}
		if r.minor >= 0 {
			jump(jumpIf(unix.BPF_JNE, r5, int32(r.minor)))
		}
		switch {
		case r.access == anyAccess:
		case r.allow:
			b = append(b, alu(unix.BPF_AND, r3, int32(anyAccess&^r.access)))
			jump(jumpIf(unix.BPF_JNE, r3, 0))
		default:
			b = append(b, movReg(r0, r3), alu(unix.BPF_AND, r0, int32(r.access)))
			jump(jumpIf(unix.BPF_JEQ, r0, 0))
		}
		b = append(b, result(verdict(r.allow))...)
		for _, at := range next {
			b[at].off = int16(len(b) - at - 1)
		}
		p = append(p, b...)
	}
	return append(p, result(0)...)
}

func verdict(allow bool) int32 {
	if allow {
		return 1
	}
	return 0
}

// The parts of union bpf_attr that are used. Addresses are pointers, so that what lies on a stack may move with it.
type (
	attrLoad struct {
		kind, count     uint32
		insns, license  unsafe.Pointer
		logLevel, logSz uint32
		logBuf          uint64
		kernel, flags   uint32
		name            [16]byte
	}
	attrAttach struct {
		target, prog, kind, flags, replace uint32
	}
	attrQuery struct {
		target, kind, queryFlags, attachFlags uint32
		ids                                   unsafe.Pointer
		count                                 uint32
		_                                     uint32
	}
	attrID struct {
		id, next, flags uint32
	}
)

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		// The verifier gives up with EAGAIN when a signal is pending.
		if errno == unix.EINTR || errno == unix.EAGAIN {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(r), nil
	}
}

func loadDevices(rules []rule) (int, error) {
	p := deviceProgram(rules)
	license := []byte("Apache\x00")
	attr := attrLoad{
		kind:    unix.BPF_PROG_TYPE_CGROUP_DEVICE,
		count:   uint32(len(p)),
		insns:   unsafe.Pointer(&p[0]),
		license: unsafe.Pointer(&license[0]),
	}
	copy(attr.name[:], "cale_devices")
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return -1, fmt.Errorf("load the device program (%d instructions): %w", len(p), err)
	}
	return fd, nil
}

// attachDevices puts the rules on a cgroup2 directory in place of what was there: the new program is attached before
// the old ones go, so that there is no moment without one.
func (c *Cgroup) attachDevices(dir string, rules []rule) error {
	if c.fake {
		return c.write(dir, "devices.program", fmt.Sprint(len(deviceProgram(rules))))
	}
	target, err := openRetry(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open cgroup", Path: dir, Err: err}
	}
	defer unix.Close(target)
	old, err := attachedDevices(target)
	if err != nil {
		return fmt.Errorf("list the device programs of %s: %w", dir, err)
	}
	prog, err := loadDevices(rules)
	if err != nil {
		return err
	}
	defer unix.Close(prog)
	attr := attrAttach{uint32(target), uint32(prog), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI, 0}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("attach the device program to %s: %w", dir, err)
	}
	for _, id := range old {
		if err := detachDevices(target, id); err != nil {
			return fmt.Errorf("detach an old device program from %s: %w", dir, err)
		}
	}
	return nil
}

func attachedDevices(target int) ([]uint32, error) {
	ids := make([]uint32, 64) // BPF_CGROUP_MAX_PROGS
	attr := attrQuery{target: uint32(target), kind: unix.BPF_CGROUP_DEVICE,
		ids: unsafe.Pointer(&ids[0]), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return ids[:min(int(attr.count), len(ids))], err
}

func detachDevices(target int, id uint32) error {
	byID := attrID{id: id}
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&byID), unsafe.Sizeof(byID))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attr := attrAttach{target: uint32(target), prog: uint32(fd), kind: unix.BPF_CGROUP_DEVICE}
	_, err = bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
