package runtime

import (
	"os/exec"
	goruntime "runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// applets are busybox programs that look at what a process has.
func (w *world) applets(names ...string) {
	for _, n := range names {
		w.link("busybox", "bin/"+n)
	}
}

// TestScheduling: scheduler, I/O priority and NUMA policy, looked at from inside; a process of exec has its own.
func TestScheduling(t *testing.T) {
	w := newWorld(t)
	w.applets("ionice")
	w.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 3, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	w.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	// proc_pid_stat(5): the nice value, and the policy, which is SCHED_BATCH.
	out := w.must("ionice -p 1; cut -d' ' -f19,41 /proc/1/stat")
	for _, want := range []string{"best-effort: prio 6", "\n3 3"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	w.spec.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_LATER"}
	if _, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), "invalid scheduler policy: SCHED_LATER") {
		t.Errorf("error: %v", err)
	}
	w.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 2000000, Deadline: 1000000}
	if _, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), "runtime (2000000) must be <= deadline (1000000)") {
		t.Errorf("error: %v", err)
	}
	w.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Deadline: 1000000}
	if _, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), "sched_setattr: `SCHED_DEADLINE` runtime must be greater than 0") {
		t.Errorf("error: %v", err)
	}
	w.spec.Process.Scheduler = nil
	w.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_CLASS_BEST"}
	if _, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), "ioPriority.class") {
		t.Errorf("error: %v", err)
	}
}

func TestMemoryPolicy(t *testing.T) {
	w := newWorld(t)
	w.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	out, _, err := w.run("cat /proc/self/numa_maps")
	switch {
	case unix.Access("/proc/self/numa_maps", unix.R_OK) != nil:
		if err == nil || !strings.Contains(err.Error(), "memory policy MPOL_BIND") {
			t.Errorf("without NUMA: %v", err)
		}
	case err != nil || !strings.Contains(out, "bind=static:0"):
		t.Errorf("%v: %s", err, out)
	}
	w.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolLocal, Nodes: "0"}
	if _, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), "requires 0 nodes") {
		t.Errorf("error: %v", err)
	}
}

func TestExecAffinity(t *testing.T) {
	w := newWorld(t)
	w.spec.Process.Args = []string{"sleep", "1000"}
	c := w.start()
	ps := w.process("grep Cpus_allowed_list /proc/self/status")
	ps.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
	if out, code, err := w.exec(c, ps); err != nil || code != 0 || strings.Join(strings.Fields(out), " ") != "Cpus_allowed_list: 0" {
		t.Errorf("%d, %v: %s", code, err, out)
	}
	for _, bad := range []string{"x", "1-0", "4000000", "-1", ","} {
		ps.ExecCPUAffinity = &specs.CPUAffinity{Final: bad}
		if _, _, err := w.exec(c, ps); err == nil || !strings.Contains(err.Error(), "CPU affinity") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestNetDevices: an interface of the host's comes into the container under another name, with its address, and is up.
func TestNetDevices(t *testing.T) {
	w := newWorld(t)
	w.applets("ip")
	// The thread has a network of its own, and ends with it.
	goruntime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip(err)
	}
	for _, args := range [][]string{{"link", "add", "cale0", "type", "veth", "peer", "name", "cale1"},
		{"address", "add", "10.77.1.2/24", "dev", "cale0"}, {"link", "set", "cale1", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip: %v: %s", err, out)
		}
	}
	w.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"cale0": {Name: "eth9"}}
	out := w.must("ip address show eth9")
	for _, want := range []string{"10.77.1.2/24", "UP"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	w.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"nosuch0": {}}
	if _, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), "network device nosuch0") {
		t.Errorf("error: %v", err)
	}
}
