package runtime

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"unsafe"

	"cale/runtime/launch"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// stepScheduler begins the name of the step that sets a scheduler.
const stepScheduler = "set the scheduler"

// schedulerError says of a scheduler that was refused what the kernel doesn't: one with deadlines needs all processors
// (sched_setattr(2)).
func schedulerError(err error, r *specs.LinuxResources) error {
	var e *launch.Error
	if errors.As(err, &e) && e.Errno == unix.EPERM && strings.HasPrefix(e.Step, stepScheduler) &&
		r != nil && r.CPU != nil && r.CPU.Cpus != "" {
		return fmt.Errorf("process scheduler can't be used together with AllowedCPUs: %w", err)
	}
	return err
}

// emitScheduling adds the scheduler's attributes and the I/O priority.
func (pr *process) emitScheduling(p *launch.Program) error {
	if s := pr.spec.Scheduler; s != nil {
		a, err := schedAttr(s)
		if err != nil {
			return err
		}
		p.Step(stepScheduler + " " + string(s.Policy))
		p.Call(unix.SYS_SCHED_SETATTR, launch.N(0), launch.Copy(p, a), launch.N(0))
	}
	if io := pr.spec.IOPriority; io != nil {
		class, ok := map[specs.IOPriorityClass]int{
			specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3,
		}[io.Class]
		if !ok {
			return fmt.Errorf("invalid ioPriority.class: %s", io.Class)
		}
		if io.Priority < 0 || io.Priority > 7 {
			return fmt.Errorf("invalid ioPriority.priority: %d", io.Priority)
		}
		p.Step(fmt.Sprintf("set the I/O priority %s %d", io.Class, io.Priority))
		p.Call(unix.SYS_IOPRIO_SET, launch.N(1), launch.N(0), launch.N(class<<13|io.Priority))
	}
	return nil
}

// checkScheduler finds what the kernel would only call an invalid argument (sched_setattr(2)).
func checkScheduler(s *specs.Scheduler) error {
	switch {
	case s.Policy == "":
		return errors.New("scheduler policy is required")
	case (s.Policy == specs.SchedOther || s.Policy == specs.SchedBatch) && (s.Nice < -20 || s.Nice > 19):
		return fmt.Errorf("invalid scheduler.nice: %d when scheduler.policy is %s", s.Nice, s.Policy)
	case s.Priority != 0 && s.Policy != specs.SchedFIFO && s.Policy != specs.SchedRR:
		return errors.New("scheduler.priority can only be specified for SchedFIFO or SchedRR policy")
	case s.Policy != specs.SchedDeadline:
		if s.Runtime != 0 || s.Deadline != 0 || s.Period != 0 {
			return errors.New("scheduler runtime/deadline/period can only be specified for SchedDeadline policy")
		}
		return nil
	case s.Runtime == 0:
		// A zero is the same as none here: both of crun's messages are true.
		return fmt.Errorf("sched_setattr: `%[1]s` requires `runtime`, in nanoseconds (sched_setattr: `%[1]s` runtime must be greater than 0)", s.Policy)
	case s.Deadline == 0:
		return fmt.Errorf("sched_setattr: `%s` requires `deadline`, in nanoseconds", s.Policy)
	case s.Runtime < 1024 || s.Runtime >= 1<<63:
		return fmt.Errorf("sched_setattr: `%s` runtime (%d) must be between 1024 and %d", s.Policy, s.Runtime, uint64(1<<63-1))
	case s.Runtime > s.Deadline:
		return fmt.Errorf("sched_setattr: `%s` runtime (%d) must be <= deadline (%d)", s.Policy, s.Runtime, s.Deadline)
	case s.Period != 0 && s.Deadline > s.Period:
		return fmt.Errorf("sched_setattr: `%s` deadline (%d) must be <= period (%d)", s.Policy, s.Deadline, s.Period)
	}
	return nil
}

func schedAttr(s *specs.Scheduler) (unix.SchedAttr, error) {
	if err := checkScheduler(s); err != nil {
		return unix.SchedAttr{}, err
	}
	a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Nice: s.Nice, Priority: uint32(s.Priority),
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	policy, ok := map[specs.LinuxSchedulerPolicy]uint32{
		specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4,
		specs.SchedIdle: 5, specs.SchedDeadline: 6,
	}[s.Policy]
	if !ok {
		return a, fmt.Errorf("invalid scheduler policy: %s", s.Policy)
	}
	a.Policy = policy
	for _, f := range s.Flags {
		bit, ok := map[specs.LinuxSchedulerFlag]uint64{
			specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4,
			specs.SchedFlagKeepPolicy: 8, specs.SchedFlagKeepParams: 0x10, specs.SchedFlagUtilClampMin: 0x20,
			specs.SchedFlagUtilClampMax: 0x40,
		}[f]
		if !ok {
			return a, fmt.Errorf("invalid scheduler flag: %s", f)
		}
		a.Flags |= bit
	}
	return a, nil
}

// emitPersonality sets the execution domain.
func emitPersonality(p *launch.Program, pers *specs.LinuxPersonality) error {
	if pers == nil {
		return nil
	}
	if len(pers.Flags) > 0 {
		return fmt.Errorf("personality flags are not supported")
	}
	domain, ok := map[specs.LinuxPersonalityDomain]int{specs.PerLinux: 0, specs.PerLinux32: 8}[pers.Domain]
	if !ok {
		return fmt.Errorf("invalid personality domain: %s", pers.Domain)
	}
	p.Step("set the personality " + string(pers.Domain))
	p.Call(unix.SYS_PERSONALITY, launch.N(domain))
	return nil
}

// emitMemoryPolicy sets the NUMA policy (set_mempolicy(2)).
func emitMemoryPolicy(p *launch.Program, m *specs.LinuxMemoryPolicy) error {
	if m == nil {
		return nil
	}
	mode, ok := map[specs.MemoryPolicyModeType]int{
		specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3, specs.MpolLocal: 4,
		specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
	}[m.Mode]
	if !ok {
		return fmt.Errorf("invalid memory policy mode %q", m.Mode)
	}
	for _, f := range m.Flags {
		bit, ok := map[specs.MemoryPolicyFlagType]int{
			specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15,
		}[f]
		if !ok {
			return fmt.Errorf("invalid memory policy flag %q", f)
		}
		mode |= bit
	}
	mask, size := launch.N(0), 0
	if m.Nodes != "" {
		set, err := parseList(m.Nodes, 1024)
		if err != nil {
			return fmt.Errorf("invalid memory policy nodes: %w", err)
		}
		count := 0
		for _, w := range set {
			count += bits.OnesCount64(w)
		}
		if count > 0 && (m.Mode == specs.MpolDefault || m.Mode == specs.MpolLocal) {
			return fmt.Errorf("memory policy %s: mode requires 0 nodes but got %d", m.Mode, count)
		}
		mem := p.Mem(len(set) * 8)
		for i, w := range set {
			*(*uint64)(unsafe.Pointer(&mem[8*i])) = w
		}
		mask, size = launch.Ptr(mem), len(set)*64+1
	}
	p.Step("set the memory policy " + string(m.Mode))
	p.Call(unix.SYS_SET_MEMPOLICY, launch.N(mode), mask, launch.N(size))
	return nil
}

// emitAffinity sets the processors a process may run on, from a list like "0-2,7".
func emitAffinity(p *launch.Program, list string) error {
	if list == "" {
		return nil
	}
	set, err := parseList(list, 1024)
	if err != nil {
		return fmt.Errorf("CPU affinity: %w", err)
	}
	mem := p.Mem(len(set) * 8)
	for i, w := range set {
		*(*uint64)(unsafe.Pointer(&mem[8*i])) = w
	}
	p.Step("set the CPU affinity " + list)
	p.Call(unix.SYS_SCHED_SETAFFINITY, launch.N(0), launch.N(len(mem)), launch.Ptr(mem))
	return nil
}

// parseList reads the kernel's list format (cpuset(7)) into a bit set of at most limit bits.
func parseList(s string, limit int) ([]uint64, error) {
	set := make([]uint64, limit/64)
	for _, part := range strings.Split(strings.TrimSpace(s), ",") {
		lo, hi, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.Atoi(lo)
		b := a
		if err == nil && isRange {
			b, err = strconv.Atoi(hi)
		}
		if err != nil || a < 0 || b < a || b >= limit {
			return nil, fmt.Errorf("bad list %q", s)
		}
		for i := a; i <= b; i++ {
			set[i/64] |= 1 << (i % 64)
		}
	}
	return set, nil
}
