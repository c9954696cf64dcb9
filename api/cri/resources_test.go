package cri

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
	"cale/engine/ocispec"
)

// limited is a container with resources.
func (n *node) limited(name string, r *runtimeapi.LinuxContainerResources, cmd ...string) *runtimeapi.ContainerConfig {
	c := n.config(name, cmd...)
	c.Linux = &runtimeapi.LinuxContainerConfig{Resources: r}
	return c
}

// Want of memory is the reason for an end only where the container's own process died of it.
func testOutOfMemory(t *testing.T, n *node) {
	p := n.podConfig("oom")
	pod := n.pod(p)
	memory := &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 20}
	const eat = "tail -c 100000000 /dev/zero >/dev/null"
	for name, test := range map[string]struct {
		script, reason string
		code           int32
	}{
		"own":        {"exec " + eat, "OOMKilled", 137},
		"child":      {eat + "; exit 4", "Error", 4},
		"forgiven":   {eat + "; exit 0", "Completed", 0},
		"not memory": {"sh -c 'kill -9 $$'; exit $?", "Error", 137},
	} {
		st := n.exited(n.run(pod, p, n.limited(name, memory, "sh", "-c", test.script)))
		if st.Reason != test.reason || st.ExitCode != test.code {
			t.Errorf("%s: %s, %d", name, st.Reason, st.ExitCode)
		}
	}
	// Killed by its user after a child of it was killed by the kernel.
	id := n.run(pod, p, n.limited("stopped", memory, "sh", "-c", eat+"; touch /ate; trap '' TERM; while :; do sleep 0.1; done"))
	n.sh(id, "until [ -e /ate ]; do sleep 0.1; done")
	if _, err := n.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	if st := n.exited(id); st.Reason != "Error" || st.ExitCode != 137 {
		t.Errorf("stopped: %s, %d", st.Reason, st.ExitCode)
	}
}

// oci is the configuration that the runtime has of a container.
func (n *node) oci(pod, id string) *specs.Spec {
	n.t.Helper()
	raw, err := os.ReadFile(filepath.Join(n.dir, "run", "pods", pod, id, "config.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	s := new(specs.Spec)
	if err := json.Unmarshal(raw, s); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// What is asked for is what the runtime is told, also where this machine's kernel has nothing of the kind.
func testResources(t *testing.T, n *node) {
	p := n.podConfig("resources")
	pod := n.pod(p)
	id := n.run(pod, p, n.limited("all", &runtimeapi.LinuxContainerResources{CpuShares: 512, CpuQuota: 20_000, CpuPeriod: 100_000, CpusetCpus: "0",
		MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 96 << 20, OomScoreAdj: 900,
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}}, Unified: map[string]string{"memory.high": "50000000"}}, "sleep", "1000"))
	r := n.oci(pod, id).Linux.Resources
	if *r.CPU.Shares != 512 || *r.CPU.Quota != 20_000 || *r.CPU.Period != 100_000 || r.CPU.Cpus != "0" || *r.Memory.Limit != 64<<20 {
		t.Errorf("%+v, %+v", r.CPU, r.Memory)
	}
	if engine.SwapLimits() && *r.Memory.Swap != 96<<20 {
		t.Errorf("swap: %d", *r.Memory.Swap)
	}
	want := []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}
	if !engine.HugepageLimits() {
		want = nil
	}
	if !slices.Equal(r.HugepageLimits, want) {
		t.Errorf("huge pages: %v", r.HugepageLimits)
	}
	if want := ocispec.CgroupV2(); (r.Unified["memory.high"] != "") != want {
		t.Errorf("unified: %v", r.Unified)
	}
	if got := n.sh(id, "cat /proc/1/oom_score_adj"); got != "900" {
		t.Errorf("oom_score_adj %s", got)
	}
	if got := n.status(id).Resources.Linux; got.CpuShares != 512 || got.MemoryLimitInBytes != 64<<20 || len(got.HugepageLimits) != 1 || got.OomScoreAdj != 900 {
		t.Errorf("status: %v", got)
	}
	// Without a word about swap there is none.
	id = n.run(pod, p, n.limited("no-swap", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}, "sleep", "1000"))
	if r := n.oci(pod, id).Linux.Resources; engine.SwapLimits() && *r.Memory.Swap != 64<<20 {
		t.Errorf("swap: %d", *r.Memory.Swap)
	}
	for _, bad := range []*runtimeapi.LinuxContainerResources{{MemoryLimitInBytes: -5}, {CpuPeriod: -1}, {CpusetCpus: "none"}, {OomScoreAdj: 2000}, {CpuShares: -1}} {
		c, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: n.limited("bad", bad, "true"), SandboxConfig: p})
		if err == nil {
			_, err = n.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: c.ContainerId})
			n.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: c.ContainerId})
		}
		if err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

// The pod's own group is the kubelet's: containers are in it, and nothing of it is set or taken away by us.
func testPodResources(t *testing.T, n *node) {
	if ocispec.CgroupV2() {
		t.Skip("looks at a hierarchy of version 1")
	}
	parent := "/cale-cri-test-" + filepath.Base(n.dir)
	dir := "/sys/fs/cgroup/memory" + parent
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer func() { // the kubelet would have made it in all hierarchies; here the containers did
		groups, _ := filepath.Glob("/sys/fs/cgroup/*" + parent)
		for _, g := range groups {
			if err := os.Remove(g); err != nil {
				t.Error(err)
			}
		}
	}()
	limit := filepath.Join(dir, "memory.limit_in_bytes")
	if err := os.WriteFile(limit, []byte("134217728"), 0); err != nil {
		t.Fatal(err)
	}
	p := n.podConfig("pod-resources")
	p.Linux.CgroupParent = parent
	p.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20}
	p.Linux.Overhead = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 1 << 20}
	pod := n.pod(p)
	id := n.run(pod, p, n.config("c", "sleep", "1000"))
	if _, err := os.Stat(filepath.Join(dir, id)); err != nil {
		t.Error(err)
	}
	if _, err := n.UpdatePodSandboxResources(n.ctx(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: pod, Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 1 << 30}}); err != nil {
		t.Error(err)
	}
	if _, err := n.UpdatePodSandboxResources(n.ctx(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: "0123456789"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(limit); err != nil || strings.TrimSpace(string(raw)) != "134217728" {
		t.Errorf("%s, %v", raw, err)
	}
	if _, err := os.Stat(filepath.Join(dir, id)); err == nil {
		t.Error("the container's group is left")
	}
}

// A resize counts at once, up and down; one that can't be is refused, and changes nothing.
func testResize(t *testing.T, n *node) {
	if ocispec.CgroupV2() {
		t.Skip("looks at files of version 1")
	}
	p := n.podConfig("resize")
	pod := n.pod(p)
	id := n.run(pod, p, n.limited("c", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuQuota: 50_000, CpuPeriod: 100_000, CpuShares: 512}, "sleep", "1000"))
	const read = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares"
	for _, step := range []struct {
		ask  *runtimeapi.LinuxContainerResources
		want string
	}{
		{&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 256 << 20}, "268435456\n50000\n512"},
		{&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, CpuQuota: 100_000}, "33554432\n100000\n512"},
		{&runtimeapi.LinuxContainerResources{CpuShares: 1024}, "33554432\n100000\n1024"},
		{&runtimeapi.LinuxContainerResources{CpuQuota: -1}, "33554432\n-1\n1024"},
	} {
		if _, err := n.UpdateContainerResources(n.ctx(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: step.ask}); err != nil {
			t.Fatalf("%v: %v", step.ask, err)
		}
		if got := n.sh(id, read); got != step.want {
			t.Errorf("%v: %q", step.ask, got)
		}
	}
	n.crash()
	if got := n.status(id).Resources.Linux; got.MemoryLimitInBytes != 32<<20 || got.CpuShares != 1024 || got.CpuPeriod != 100_000 {
		t.Errorf("afterwards: %v", got)
	}
	if _, err := n.UpdateContainerResources(n.ctx(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{CpusetCpus: "9999"}}); err == nil {
		t.Error("a processor that isn't there was taken")
	}
	if got := n.sh(id, read); got != "33554432\n-1\n1024" {
		t.Errorf("after a refusal: %q", got)
	}
}
