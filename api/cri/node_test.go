package cri

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What is measured was described, label by label.
func testMetrics(t *testing.T, n *node) {
	p := n.podConfig("measured")
	id := n.pod(p)
	c := n.config("c", "sleep", "1000")
	c.Linux = &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuQuota: 50_000, CpuPeriod: 100_000}}
	cid := n.run(id, p, c)
	d, err := n.ListMetricDescriptors(n.ctx(), &runtimeapi.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]string{}
	for _, x := range d.Descriptors {
		if x.Help == "" || keys[x.Name] != nil {
			t.Errorf("%v", x)
		}
		keys[x.Name] = x.LabelKeys
	}
	st, err := n.StreamPodSandboxMetrics(n.ctx(), &runtimeapi.StreamPodSandboxMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := st.Recv()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]map[string]uint64{} // by name and labels
	for _, pm := range all.PodSandboxMetrics {
		if pm.PodSandboxId != id {
			continue
		}
		for _, m := range append(slices.Clone(pm.Metrics), pm.ContainerMetrics[0].Metrics...) {
			if len(m.LabelValues) != len(keys[m.Name]) {
				t.Errorf("%s: %d values of %d labels", m.Name, len(m.LabelValues), len(keys[m.Name]))
				continue
			}
			if got[m.Name] == nil {
				got[m.Name] = map[string]uint64{}
			}
			got[m.Name][strings.Join(m.LabelValues[len(commonLabels):], ",")] = m.Value.Value
			if m.LabelValues[5] != "measured" || m.LabelValues[3] != cid && m.LabelValues[3] != id {
				t.Errorf("%s: labels %q", m.Name, m.LabelValues)
			}
		}
	}
	for name, want := range map[string]uint64{"container_spec_memory_limit_bytes": 64 << 20, "container_processes": 1, "container_spec_cpu_quota": 50_000, "container_threads": 1} {
		if v, ok := got[name][""]; !ok || v != want {
			t.Errorf("%s is %v, not %d", name, got[name], want)
		}
	}
	if _, ok := got["container_network_receive_bytes_total"]["eth0"]; !ok {
		t.Errorf("network: %v", got["container_network_receive_bytes_total"])
	}
}

// Handlers come from the administrator's file, which is read when it is used, and from $PATH.
func testHandlers(t *testing.T, n *node) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("no runc here")
	}
	etc := filepath.Join(n.dir, "etc")
	if err := os.MkdirAll(etc, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(etc, "runtimes.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	defer os.Remove(filepath.Join(etc, "runtimes.json"))
	write(`{"mine": {"path": "` + runc + `"}}`)
	st, err := n.Status(n.ctx(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	features := map[string]*runtimeapi.RuntimeHandlerFeatures{}
	for _, h := range st.RuntimeHandlers {
		features[h.Name] = h.Features
	}
	if f := features[""]; f == nil || !f.RecursiveReadOnlyMounts || !f.UserNamespaces {
		t.Errorf("the default: %v", f)
	}
	if f := features["mine"]; f == nil || f.UserNamespaces {
		t.Errorf("runc: %v", f)
	}
	p := n.podConfig("handled")
	r, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: p, RuntimeHandler: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	c := n.run(r.PodSandboxId, p, n.config("c", "sleep", "1000"))
	if got := n.sh(c, "hostname"); got != "handled" {
		t.Errorf("%q", got)
	}
	if _, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: mappedPod(n, "handled2"), RuntimeHandler: "mine"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("user namespace with another runtime: %v", err)
	}
	if _, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("handled3"), RuntimeHandler: "nobody's"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an unknown handler: %v", err)
	}
	write(`{"cale": {}}`)
	st, err = n.Status(n.ctx(), &runtimeapi.StatusRequest{})
	if err != nil || st.Status.Conditions[0].Status || !strings.Contains(st.Status.Conditions[0].Message, "runtimes.json") {
		t.Errorf("settings that make no sense: %v, %v", st, err)
	}
}

func testMountOptions(t *testing.T, n *node) {
	p := n.podConfig("options")
	id := n.pod(p)
	c := n.config("c", "sleep", "1000")
	c.Mounts = []*runtimeapi.Mount{{HostPath: n.dir, ContainerPath: "/vol", MountOptions: []string{"noexec", "nosuid", "nodev"}}}
	cid := n.run(id, p, c)
	if got := n.sh(cid, "grep ' /vol ' /proc/mounts"); !strings.Contains(got, "noexec") || !strings.Contains(got, "nosuid") || !strings.Contains(got, "nodev") {
		t.Errorf("%q", got)
	}
	c = n.config("bad", "true")
	c.Mounts = []*runtimeapi.Mount{{HostPath: n.dir, ContainerPath: "/vol", MountOptions: []string{"rbind"}}}
	if _, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: c, SandboxConfig: p}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}

func testAmbient(t *testing.T, n *node) {
	p := n.podConfig("ambient")
	id := n.pod(p)
	c := n.config("c", "sleep", "1000")
	c.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{RunAsUser: &runtimeapi.Int64Value{Value: 1000},
		Capabilities: &runtimeapi.Capability{AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}}}}
	cid := n.run(id, p, c)
	for _, where := range []string{"1", "self"} {
		if got := n.sh(cid, "grep CapAmb: /proc/"+where+"/status"); !strings.HasSuffix(got, "0000000000000400") {
			t.Errorf("%s: %q", where, got)
		}
	}
}

// Devices come from descriptions on the node, in both formats, by field and by annotation.
func testCDI(t *testing.T, n *node) {
	dir := filepath.Join(n.dir, "cdi")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a.json": `{"cdiVersion": "0.6.0", "kind": "vendor.com/dev", "containerEdits": {"env": ["ALL=1"]}, "devices": [
			{"name": "zero", "containerEdits": {"env": ["ZERO=yes"], "deviceNodes": [{"path": "/dev/my-zero", "hostPath": "/dev/zero"}],
			 "mounts": [{"hostPath": "` + dir + `", "containerPath": "/cdi", "options": ["ro"]}], "additionalGids": [4711]}}]}`,
		"b.yaml": "cdiVersion: 0.6.0\nkind: vendor.com/other\ndevices:\n- name: \"1\"\n  containerEdits:\n    env: [OTHER=1]\n",
		"c.json": `{"cdiVersion": "0.6.0", "kind": "vendor.com/twice", "devices": [{"name": "x", "containerEdits": {}}]}`,
		"d.json": `{"cdiVersion": "0.6.0", "kind": "vendor.com/twice", "devices": [{"name": "x", "containerEdits": {}}]}`,
		"e.json": `{`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := n.podConfig("cdi")
	id := n.pod(p)
	c := n.config("c", "sleep", "1000")
	c.CDIDevices = []*runtimeapi.CDIDevice{{Name: "vendor.com/dev=zero"}}
	c.Annotations = map[string]string{"cdi.k8s.io/some-plugin": "vendor.com/other=1"}
	cid := n.run(id, p, c)
	if got := n.sh(cid, "tr '\\0' '\\n' < /proc/1/environ | grep -E '^(ALL|ZERO|OTHER)=' | sort; head -c 3 /dev/my-zero | wc -c; ls /cdi/a.json; grep -o 4711 /proc/1/status"); got != "ALL=1\nOTHER=1\nZERO=yes\n3\n/cdi/a.json\n4711" {
		t.Errorf("%q", got)
	}
	for name, want := range map[string]string{"vendor.com/dev=none": "e.json", "vendor.com/twice=x": "described twice", "../etc": "VENDOR/CLASS=NAME"} {
		c := n.config("bad", "true")
		c.CDIDevices = []*runtimeapi.CDIDevice{{Name: name}}
		_, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: c, SandboxConfig: p})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
