package nri

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"

	"cale/engine"
)

// What a plug-in wants of a container is done to the letter or refused by name: never left out in silence.
func TestAdjust(t *testing.T) {
	p := new(plugins)
	s := engine.Spec{Member: new(engine.Member), Annotations: map[string]string{"gone": "1"}}
	a := &api.ContainerAdjustment{}
	a.AddEnv("A", "1")
	a.RemoveEnv("B")
	a.RemoveAnnotation("gone")
	a.RemoveMount("/m")
	a.RemoveDevice("/dev/x")
	a.SetLinuxOomScoreAdj(&[]int{7}[0])
	a.AddLinuxHugepageLimit("2MB", 5)
	a.SetLinuxIOPriority(&api.LinuxIOPriority{Class: api.IOPrioClass_IOPRIO_CLASS_IDLE, Priority: 3})
	a.SetLinuxSeccompPolicy(&api.LinuxSeccomp{DefaultAction: "SCMP_ACT_ERRNO", DefaultErrno: api.UInt32(uint32(2)), Flags: []string{"SECCOMP_FILTER_FLAG_LOG"},
		Syscalls: []*api.LinuxSyscall{{Names: []string{"read"}, Action: "SCMP_ACT_ALLOW"}}})
	a.SetLinuxSysctl("kernel.a", "1")
	a.Linux.Sysctl[api.MarkForRemoval("kernel.b")] = ""
	a.SetLinuxScheduler(&api.LinuxScheduler{Policy: api.LinuxSchedulerPolicy_SCHED_BATCH, Nice: 4})
	if err := p.adjust(&s, a); err != nil {
		t.Fatal(err)
	}
	e := s.Member.Edits
	if strings.Join(e.Env, " ") != "A=1 B" || len(s.Annotations) != 0 || e.Unmounted[0] != "/m" || e.RemovedDevices[0] != "/dev/x" || *e.OOMScore != 7 ||
		s.Member.HugepageLimits["2MB"] != 5 || e.IOPriority.Class != "IOPRIO_CLASS_IDLE" || e.IOPriority.Priority != 3 || e.Seccomp.DefaultAction != "SCMP_ACT_ERRNO" ||
		*e.Seccomp.DefaultErrnoRet != 2 || e.Seccomp.Syscalls[0].Names[0] != "read" || e.Sysctls["kernel.a"] != "1" || e.RemovedSysctls[0] != "kernel.b" ||
		e.Scheduler.Policy != "SCHED_BATCH" || e.Scheduler.Nice != 4 {
		t.Errorf("%+v", e)
	}
	for what, l := range map[string]*api.LinuxContainerAdjustment{
		"namespaces":     {Namespaces: []*api.LinuxNamespace{{Type: "pid"}}},
		"an RDT class":   {Rdt: &api.LinuxRdt{ClosId: api.String("x")}},
		"another cgroup": {CgroupsPath: "/x"},
		"RDT classes":    {Resources: &api.LinuxResources{RdtClass: api.String("x")}},
		"block I/O":      {Resources: &api.LinuxResources{BlockioClass: api.String("x")}},
		"device rules":   {Resources: &api.LinuxResources{Devices: []*api.LinuxDeviceCgroup{{Allow: true}}}},
		"kernel memory":  {Resources: &api.LinuxResources{Memory: &api.LinuxMemory{Kernel: api.Int64(int64(1))}}},
	} {
		err := p.adjust(&engine.Spec{Member: new(engine.Member)}, &api.ContainerAdjustment{Linux: l})
		if err == nil || !strings.Contains(err.Error(), what) || what != "kernel memory" && !errors.Is(err, engine.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
