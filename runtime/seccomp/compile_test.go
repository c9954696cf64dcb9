package seccomp

import (
	"math/rand/v2"
	"testing"

	mobyseccomp "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// data is struct seccomp_data.
type data struct {
	number, arch uint32
	args         [6]uint64
}

// run interprets a program as the kernel does and counts the instructions it took.
func run(t testing.TB, p []unix.SockFilter, d data) (action uint32, steps int) {
	t.Helper()
	var acc uint32
	for pc := 0; pc < len(p); pc++ {
		steps++
		in := p[pc]
		jump := func(cond bool) {
			if cond {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			switch {
			case in.K == offNumber:
				acc = d.number
			case in.K == offArch:
				acc = d.arch
			case in.K >= offArgs && in.K < 64 && in.K%4 == 0:
				acc = uint32(d.args[(in.K-offArgs)/8] >> (8 * (in.K % 8)))
			default:
				t.Fatalf("load of offset %d", in.K)
			}
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= in.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JEQ:
			jump(acc == in.K)
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JGE:
			jump(acc >= in.K)
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JGT:
			jump(acc > in.K)
		case unix.BPF_RET | unix.BPF_K:
			return in.K, steps
		default:
			t.Fatalf("instruction %d has code %#x", pc, in.Code)
		}
	}
	t.Fatal("the program's end was run over")
	return 0, 0
}

func number(t testing.TB, column int, name string) uint32 {
	t.Helper()
	row := lookup(name)
	if row == nil || row.numbers[column] < 0 {
		t.Fatalf("no %s in column %d", name, column)
	}
	n := uint32(row.numbers[column])
	if column == x32 {
		n |= x32Bit
	}
	return n
}

// matches is the plain meaning of one condition.
func matches(a specs.LinuxSeccompArg, v uint64, wide bool) bool {
	value, two := a.Value, a.ValueTwo
	if !wide {
		value, two = uint64(uint32(value)), uint64(uint32(two))
	}
	switch a.Op {
	case specs.OpEqualTo:
		return v == value
	case specs.OpNotEqual:
		return v != value
	case specs.OpLessThan:
		return v < value
	case specs.OpLessEqual:
		return v <= value
	case specs.OpGreaterThan:
		return v > value
	case specs.OpGreaterEqual:
		return v >= value
	}
	return v&value == two
}

// oracle decides slowly, straight from the rules.
func oracle(s *specs.LinuxSeccomp, def uint32, wide bool, name string, args [6]uint64) uint32 {
	type one struct {
		act  uint32
		args []specs.LinuxSeccompArg
		any  bool
	}
	var list []one
	for _, c := range s.Syscalls {
		act, _ := action(c.Action, c.ErrnoRet)
		if act == def {
			continue
		}
		for _, n := range c.Names {
			if n != name {
				continue
			}
			if len(c.Args) == 0 {
				return act
			}
			seen := map[uint]bool{}
			twice := false
			for _, a := range c.Args {
				twice = twice || seen[a.Index]
				seen[a.Index] = true
			}
			list = append(list, one{act, c.Args, twice})
		}
	}
	for _, r := range list {
		n := 0
		for _, a := range r.args {
			if matches(a, args[a.Index], wide) {
				n++
			}
		}
		if n == len(r.args) || r.any && n > 0 {
			return r.act
		}
	}
	return def
}

func TestRandomRulesAgainstTheirMeaning(t *testing.T) {
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual,
		specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual}
	acts := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActLog, specs.ActTrap}
	// Calls without multiplexing and with a number everywhere, the last one newer than any other used.
	names := []string{"read", "openat", "prctl", "futex", "fcntl", "getpid", "close", "dup", "listns"}
	r := rand.New(rand.NewPCG(1, 2))
	values := []uint64{0, 1, 2, 3, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x100000001, 0xffffffff00000000, 1<<64 - 1}
	pick := func() uint64 { return values[r.IntN(len(values))] }
	archs := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	for round := range 300 {
		eno := uint(1 + r.IntN(3))
		s := &specs.LinuxSeccomp{DefaultAction: acts[r.IntN(len(acts))], Architectures: archs}
		for range r.IntN(60) {
			c := specs.LinuxSyscall{Names: []string{names[r.IntN(len(names))], "listns"}, Action: acts[r.IntN(len(acts))]}
			if c.Action == specs.ActErrno {
				c.ErrnoRet = &eno
			}
			for range 1 + r.IntN(3) {
				c.Args = append(c.Args, specs.LinuxSeccompArg{Index: uint(r.IntN(6)), Value: pick(), ValueTwo: pick(), Op: ops[r.IntN(len(ops))]})
			}
			if r.IntN(8) == 0 {
				c.Args = nil
			}
			s.Syscalls = append(s.Syscalls, c)
		}
		f, err := compileFor("amd64", s)
		if err != nil {
			t.Fatal(err)
		}
		def, _ := action(s.DefaultAction, nil)
		for range 200 {
			name := names[r.IntN(len(names))]
			column := []int{amd64, i386, x32}[r.IntN(3)]
			d := data{number(t, column, name), archOf(column).audit, [6]uint64{}}
			wide := archOf(column).wide
			for i := range d.args {
				d.args[i] = pick()
				if !wide {
					d.args[i] = uint64(uint32(d.args[i]))
				}
			}
			if len(s.Syscalls) == 0 {
				continue
			}
			got, _ := run(t, f.Program, d)
			if want := oracle(s, def, wide, name, d.args); got != want {
				t.Fatalf("round %d: %s column %d args %x: got %#x, want %#x\n%+v", round, name, column, d.args, got, want, s)
			}
		}
	}
}

func mobyProfile(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{
		Bounding: []string{"CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_CHROOT"}}}}
	s, err := mobyseccomp.GetDefaultProfile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMobyProfile(t *testing.T) {
	s := mobyProfile(t)
	s.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	f, err := compileFor("amd64", s)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(f.Program))
	if len(f.Program) > 900 {
		t.Errorf("%d instructions are too many", len(f.Program))
	}
	eperm := uint32(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	allow := uint32(unix.SECCOMP_RET_ALLOW)
	for _, c := range []struct {
		column int
		name   string
		arg    uint64
		want   uint32
	}{
		{amd64, "read", 0, allow}, {i386, "read", 0, allow}, {x32, "read", 0, allow},
		{amd64, "mount", 0, eperm}, {i386, "mount", 0, eperm}, {amd64, "keyctl", 0, eperm},
		{amd64, "clone", unix.CLONE_NEWUSER, eperm}, {amd64, "clone", unix.CLONE_VM, allow},
		{amd64, "clone3", 0, enosys}, {amd64, "socket", unix.AF_INET, allow}, {amd64, "socket", unix.AF_VSOCK, eperm},
		{amd64, "personality", 0xffffffff, allow}, {amd64, "personality", 1, eperm},
	} {
		got, steps := run(t, f.Program, data{number: number(t, c.column, c.name), arch: archOf(c.column).audit, args: [6]uint64{c.arg}})
		if got != c.want {
			t.Errorf("%s(%#x), column %d: got %#x, want %#x", c.name, c.arg, c.column, got, c.want)
		}
		if steps > 40 {
			t.Errorf("%s takes %d steps", c.name, steps)
		}
	}
	// What the kernel may add: programs have to see ENOSYS and fall back.
	for _, n := range []uint32{5000, 0x40000000 + 5000} {
		if got, _ := run(t, f.Program, data{number: n, arch: unix.AUDIT_ARCH_X86_64}); got != enosys {
			t.Errorf("call %#x: got %#x, want ENOSYS", n, got)
		}
	}
	if got, _ := run(t, f.Program, data{arch: unix.AUDIT_ARCH_AARCH64}); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("a foreign architecture: got %#x", got)
	}
}

// Every call of every architecture has to come out as the rules say, at both ends of all ranges.
func TestEveryCall(t *testing.T) {
	for _, m := range []struct {
		machine string
		archs   []specs.Arch
		columns []int
	}{
		{"amd64", []specs.Arch{specs.ArchX86, specs.ArchX32}, []int{amd64, x32, i386}},
		{"amd64", []specs.Arch{specs.ArchX86}, []int{amd64, i386}},
		{"arm64", []specs.Arch{specs.ArchAARCH64, specs.ArchARM}, []int{arm64, arm}},
		{"arm", nil, []int{arm}}, {"386", nil, []int{i386}},
	} {
		var s specs.LinuxSeccomp
		s.DefaultAction, s.Architectures = specs.ActErrno, m.archs
		for i := range calls {
			switch {
			case calls[i].name == "socketcall" || calls[i].name == "ipc":
				continue
			case i%3 == 0:
				s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{calls[i].name}, Action: specs.ActAllow})
			case i%7 == 0:
				s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{calls[i].name}, Action: specs.ActTrap})
			}
		}
		f, err := compileFor(m.machine, &s)
		if err != nil {
			t.Fatal(err)
		}
		for _, column := range m.columns {
			last := uint32(0)
			for i := range calls {
				n := calls[i].numbers[column]
				if n >= 0 && n < 0xf0000 && (i%3 == 0 || i%7 == 0) && calls[i].name != "socketcall" && calls[i].name != "ipc" {
					last = max(last, uint32(n))
				}
			}
			for i := range calls {
				n := calls[i].numbers[column]
				if n < 0 || calls[i].name == "socketcall" || calls[i].name == "ipc" {
					continue
				}
				want := uint32(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
				switch {
				case i%3 == 0:
					want = unix.SECCOMP_RET_ALLOW
				case i%7 == 0:
					want = unix.SECCOMP_RET_TRAP
				case uint32(n) > last:
					want = enosys
				}
				if got, _ := run(t, f.Program, data{number: number(t, column, calls[i].name), arch: archOf(column).audit}); got != want {
					t.Errorf("%s column %d %s: got %#x, want %#x", m.machine, column, calls[i].name, got, want)
				}
			}
		}
	}
}

// 32-bit x86 programs may reach the socket calls through socketcall: what is refused must be so there, too, and a
// permission that depends on arguments the filter can't see isn't one (AF_VSOCK, AF_ALG through socketcall).
func TestMultiplexedCalls(t *testing.T) {
	allow, eperm := uint32(unix.SECCOMP_RET_ALLOW), uint32(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM))
	socketcall := func(s *specs.LinuxSeccomp, op uint64) uint32 {
		f, err := compileFor("amd64", s)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := run(t, f.Program, data{number(t, i386, "socketcall"), unix.AUDIT_ARCH_I386, [6]uint64{op, 40}})
		return got
	}
	x86 := []specs.Arch{specs.ArchX86}
	inet := []specs.LinuxSeccompArg{{Index: 0, Value: unix.AF_INET, Op: specs.OpEqualTo}}
	deny := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: x86, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"socket"}, Action: specs.ActErrno, Args: inet}, {Names: []string{"listen"}, Action: specs.ActErrno}}}
	grant := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: x86, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"socket"}, Action: specs.ActAllow, Args: inet}, {Names: []string{"listen"}, Action: specs.ActAllow}}}
	for _, c := range []struct {
		name string
		s    *specs.LinuxSeccomp
		op   uint64
		want uint32
	}{
		{"denied with arguments", deny, 1, eperm}, {"denied", deny, 4, eperm}, {"not named", deny, 2, allow},
		{"allowed with arguments", grant, 1, eperm}, {"allowed", grant, 4, allow}, {"default", grant, 2, eperm},
	} {
		if got := socketcall(c.s, c.op); got != c.want {
			t.Errorf("%s: got %#x, want %#x", c.name, got, c.want)
		}
	}
}

func TestRefusedConfigurations(t *testing.T) {
	read := func(c specs.LinuxSyscall) *specs.LinuxSeccomp {
		c.Names = []string{"read"}
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{c}}
	}
	big := uint(5000)
	for name, s := range map[string]*specs.LinuxSeccomp{
		"no default":       {},
		"unknown action":   {DefaultAction: "SCMP_ACT_DANCE"},
		"notify default":   {DefaultAction: specs.ActNotify},
		"unknown arch":     {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_Z80"}},
		"unknown flag":     {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}},
		"argument 6":       read(specs.LinuxSyscall{Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}),
		"unknown operator": read(specs.LinuxSyscall{Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "SCMP_CMP_X"}}}),
		"errno":            read(specs.LinuxSyscall{Action: specs.ActErrno, ErrnoRet: &big}),
		"no listener path": read(specs.LinuxSyscall{Action: specs.ActNotify}),
		"notify write": {DefaultAction: specs.ActAllow, ListenerPath: "/x",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActNotify}}},
		"no names": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActErrno}}},
	} {
		if _, err := compileFor("amd64", s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		list     []specs.LinuxSeccompFlag
		listener bool
		want     uint
	}{
		{nil, false, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{[]specs.LinuxSeccompFlag{}, false, 0},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog}, false, unix.SECCOMP_FILTER_FLAG_LOG},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}, true,
			unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER},
	} {
		got, err := flags(c.list, c.listener)
		if err != nil || got != c.want {
			t.Errorf("%v: got %#x, %v, want %#x", c.list, got, err, c.want)
		}
	}
}

func BenchmarkMobyProfile(b *testing.B) {
	s := mobyProfile(b)
	for b.Loop() {
		if _, err := Compile(s); err != nil {
			b.Fatal(err)
		}
	}
}
