// Package seccomp turns the OCI specification's system call rules into a BPF program, without libseccomp.
package seccomp

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Filter is what seccomp(SECCOMP_SET_MODE_FILTER, Flags, Program) takes.
type Filter struct {
	Program []unix.SockFilter
	Flags   uint
	// NeedsListener says that a rule notifies: the call returns a descriptor (SECCOMP_FILTER_FLAG_NEW_LISTENER is in
	// Flags already), which the caller hands to the configuration's listenerPath.
	NeedsListener bool
}

// maxProgram is the kernel's BPF_MAXINSNS.
const maxProgram = 4096

// rule is a LinuxSyscall without its names.
type rule struct {
	action uint32
	args   []specs.LinuxSeccompArg
}

// Compile translates the rules. Names of system calls no table knows are left out, as runc does. A nil
// configuration gives an empty Program. Compiling moby's profile takes some 0.2 ms: callers that start many
// containers keep the result.
//
// Where rules for one call contradict each other, the outcome is libseccomp's, which profiles are written for: a
// rule without arguments beats those with, of several the first counts, and rules with the default action don't.
// Calls newer than all the configuration names get ENOSYS where the default is to refuse, as in runc, so that
// programs fall back to what they did before.
func Compile(s *specs.LinuxSeccomp) (Filter, error) {
	return compileFor(machine(), s)
}

func compileFor(machine string, s *specs.LinuxSeccomp) (Filter, error) {
	var f Filter
	if s == nil {
		return f, nil
	}
	if s.DefaultAction == "" {
		return f, errors.New("seccomp: defaultAction is missing")
	}
	def, err := action(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return f, err
	}
	if s.DefaultAction == specs.ActNotify {
		return f, fmt.Errorf("seccomp: %s cannot be the default action", specs.ActNotify)
	}
	columns, err := columnsFor(machine, s.Architectures)
	if err != nil {
		return f, err
	}
	rules, err := parse(s, def, &f)
	if err != nil {
		return f, err
	}
	if f.Flags, err = flags(s.Flags, f.NeedsListener); err != nil {
		return f, err
	}
	if f.NeedsListener && s.ListenerPath == "" {
		return f, fmt.Errorf("seccomp: %s needs listenerPath", specs.ActNotify)
	}
	c := &compiler{asm: asm{code: make([]unix.SockFilter, 0, 512), rets: make(map[uint32]label)},
		spec: s, rules: rules, def: def, found: make([]hit, 0, 512)}
	c.name()
	f.Program = c.program(columns)
	if len(f.Program) > maxProgram {
		return f, fmt.Errorf("seccomp: the rules need %d instructions, the kernel takes %d", len(f.Program), maxProgram)
	}
	return f, nil
}

// Unknown is the first name in the rules that no table knows, or "".
func Unknown(s *specs.LinuxSeccomp) string {
	if s == nil {
		return ""
	}
	for _, call := range s.Syscalls {
		for _, name := range call.Names {
			if lookup(name) == nil {
				return name
			}
		}
	}
	return ""
}

// parse checks the rules and gives each entry of s.Syscalls its rules: none when it says what happens anyway.
func parse(s *specs.LinuxSeccomp, def uint32, f *Filter) ([][]rule, error) {
	if len(s.Syscalls) > 1<<16-1 {
		return nil, fmt.Errorf("seccomp: %d rules are too many", len(s.Syscalls))
	}
	parsed := make([][]rule, len(s.Syscalls))
	for i := range s.Syscalls {
		call := &s.Syscalls[i]
		if len(call.Names) == 0 {
			return nil, fmt.Errorf("seccomp: rule %d has no names", i)
		}
		act, err := action(call.Action, call.ErrnoRet)
		if err != nil {
			return nil, err
		}
		if call.Action == specs.ActNotify {
			f.NeedsListener = true
			for _, name := range call.Names {
				// The runtime itself has to write before it hands the listener over.
				if name == "write" {
					return nil, fmt.Errorf("seccomp: %s cannot be used for the write syscall", specs.ActNotify)
				}
			}
		}
		var uses [6]int
		twice := false
		for _, a := range call.Args {
			if a.Index > 5 {
				return nil, fmt.Errorf("seccomp: rule for %s: no argument %d, the last one is 5", call.Names[0], a.Index)
			}
			switch a.Op {
			case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual,
				specs.OpGreaterThan, specs.OpMaskedEqual:
			default:
				return nil, fmt.Errorf("seccomp: rule for %s: unknown operator %q", call.Names[0], a.Op)
			}
			uses[a.Index]++
			twice = twice || uses[a.Index] > 1
		}
		switch {
		case act == def:
		case twice:
			// Conditions on one argument can't be joined in libseccomp; runc takes any of them as enough.
			for _, a := range call.Args {
				parsed[i] = append(parsed[i], rule{act, []specs.LinuxSeccompArg{a}})
			}
		default:
			parsed[i] = []rule{{act, call.Args}}
		}
	}
	return parsed, nil
}

func action(a specs.LinuxSeccompAction, ret *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if ret != nil {
		data = uint32(*ret)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno, specs.ActTrace:
		if ret != nil && *ret > 0xffff || a == specs.ActErrno && data > 4095 {
			return 0, fmt.Errorf("seccomp: errnoRet %d is out of range", *ret)
		}
		if a == specs.ActTrace {
			return unix.SECCOMP_RET_TRACE | data, nil
		}
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, fmt.Errorf("seccomp: unknown action %q", a)
}

// flags translates flag names. Without a list, speculation stays as the host has it (runc's default too): the
// mitigation that filters otherwise switch on costs much and protects what a container isn't.
func flags(list []specs.LinuxSeccompFlag, listener bool) (uint, error) {
	var f uint
	if list == nil {
		f = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	for _, name := range list {
		switch name {
		case "SECCOMP_FILTER_FLAG_TSYNC": // the filter is set while there is one thread
		case specs.LinuxSeccompFlagLog:
			f |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			f |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if !listener {
				return 0, fmt.Errorf("seccomp: flag %s needs a rule with %s", name, specs.ActNotify)
			}
			f |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return 0, fmt.Errorf("seccomp: unknown flag %q", name)
		}
	}
	if listener {
		f |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	return f, nil
}
