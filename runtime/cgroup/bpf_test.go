package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// decide interprets a device program for one access.
func decide(t *testing.T, p []insn, kind byte, major, minor int64, a access) bool {
	t.Helper()
	k := uint64(2)
	if kind == 'b' {
		k = 1
	}
	ctx := map[int16]uint64{0: uint64(a)<<16 | k, 4: uint64(major), 8: uint64(minor)}
	var r [11]uint64
	for pc := 0; pc < len(p); pc++ {
		in := p[pc]
		dst, src := in.regs&15, in.regs>>4
		switch in.code {
		case unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM:
			r[dst] = ctx[in.off]
		case unix.BPF_ALU | unix.BPF_X | unix.BPF_MOV:
			r[dst] = uint64(uint32(r[src]))
		case unix.BPF_ALU | unix.BPF_K | unix.BPF_MOV:
			r[dst] = uint64(uint32(in.imm))
		case unix.BPF_ALU | unix.BPF_K | unix.BPF_AND:
			r[dst] = uint64(uint32(r[dst]) & uint32(in.imm))
		case unix.BPF_ALU | unix.BPF_K | unix.BPF_RSH:
			r[dst] = uint64(uint32(r[dst]) >> in.imm)
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JNE:
			if r[dst] != uint64(in.imm) {
				pc += int(in.off)
			}
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JEQ:
			if r[dst] == uint64(in.imm) {
				pc += int(in.off)
			}
		case unix.BPF_JMP | unix.BPF_EXIT:
			return r[0] == 1
		default:
			t.Fatalf("instruction %d has code %#x", pc, in.code)
		}
	}
	t.Fatal("the program's end was run over")
	return false
}

func TestDeviceProgram(t *testing.T) {
	c := func(major, minor int64, a access, allow bool) rule {
		return rule{device{'c', major, minor}, a, allow}
	}
	all := func(allow bool) rule { return rule{device{'a', -1, -1}, anyAccess, allow} }
	for _, tc := range []struct {
		name         string
		rules        []rule
		kind         byte
		major, minor int64
		access
		want bool
	}{
		{"no rule", nil, 'c', 1, 3, readAccess, false},
		{"all", []rule{all(true)}, 'b', 8, 0, anyAccess, true},
		{"denied later", []rule{all(true), c(1, 3, anyAccess, false)}, 'c', 1, 3, readAccess, false},
		{"denied before", []rule{c(1, 3, anyAccess, false), all(true)}, 'c', 1, 3, readAccess, true},
		{"other kind", []rule{c(1, 3, anyAccess, true)}, 'b', 1, 3, readAccess, false},
		{"wildcard minor", []rule{c(136, -1, anyAccess, true)}, 'c', 136, 77, anyAccess, true},
		{"other major", []rule{c(136, -1, anyAccess, true)}, 'c', 137, 77, readAccess, false},
		{"part of the access", []rule{c(1, 3, readAccess, true)}, 'c', 1, 3, readAccess | writeAccess, false},
		{"access in two rules", []rule{c(1, 3, readAccess, true), c(1, -1, writeAccess, true)}, 'c', 1, 3, readAccess | writeAccess, true},
		{"hole in a wildcard", []rule{c(1, -1, anyAccess, true), c(1, 3, writeAccess, false)}, 'c', 1, 3, writeAccess, false},
		{"beside the hole", []rule{c(1, -1, anyAccess, true), c(1, 3, writeAccess, false)}, 'c', 1, 3, readAccess, true},
		{"defaults: null", append([]rule{all(false)}, defaultRules...), 'c', 1, 3, readAccess | writeAccess, true},
		{"defaults: mknod", append([]rule{all(false)}, defaultRules...), 'b', 8, 0, mknod, true},
		{"defaults: disk", append([]rule{all(false)}, defaultRules...), 'b', 8, 0, readAccess, false},
	} {
		if got := decide(t, deviceProgram(tc.rules), tc.kind, tc.major, tc.minor, tc.access); got != tc.want {
			t.Errorf("%s: got %v", tc.name, got)
		}
	}
}

// Letters that are no access are refused, but for one that runc passes over and configurations have.
func TestAccessLetters(t *testing.T) {
	for letters, want := range map[string]access{"rwm": anyAccess, "rwa": readAccess | writeAccess} {
		rules, err := parseRules([]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Access: letters}})
		if err != nil || len(rules) != 1 || rules[0].access != want {
			t.Errorf("%s: %v, %v", letters, rules, err)
		}
	}
	for _, letters := range []string{"rx", "a", "RW"} {
		if _, err := parseRules([]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Access: letters}}); err == nil {
			t.Errorf("%s was taken", letters)
		}
	}
}

// The kernel's verifier and the program's effect, on whatever cgroup2 hierarchy there is (a hybrid machine has one).
func TestDeviceProgramInKernel(t *testing.T) {
	c := openGroup(t)
	dir, ok := c.dir("")
	if !ok {
		t.Skip("no cgroup2 mount")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	try := func(device string) error {
		fd, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer fd.Close()
		cmd := exec.Command("/bin/sh", "-c", "exec 3<"+device)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
		return cmd.Run()
	}
	deny := append([]rule{{device{'a', -1, -1}, anyAccess, false}}, defaultRules...)
	err := c.attachDevices(dir, deny)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) && !c.v2 {
		t.Skip("the kernel takes no device programs:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if try("/dev/kmsg") == nil {
		t.Error("a device that isn't allowed opens")
	}
	if err := try("/dev/null"); err != nil {
		t.Errorf("/dev/null: %v", err)
	}
	if err := c.attachDevices(dir, append(deny, rule{device{'c', 1, 11}, readAccess, true})); err != nil {
		t.Fatal(err)
	}
	if err := try("/dev/kmsg"); err != nil {
		t.Errorf("a device that was allowed later: %v", err)
	}
	if err := c.attachDevices(dir, deny); err != nil {
		t.Fatal(err)
	}
	if try("/dev/kmsg") == nil {
		t.Error("a device that isn't allowed any more opens")
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if ids, err := attachedDevices(fd); err != nil || len(ids) != 1 {
		t.Errorf("attached: %v, %v, want one program", ids, err)
	}
}
