package cri

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/test/stack"
)

// One node for all: starting one takes longer than most that is asked of it.
func TestNode(t *testing.T) {
	n := newNode(t)
	for name, test := range map[string]func(*testing.T, *node){
		"ready": testReady, "images": testImages, "pod of two": testPodOfTwo, "shared pids": testSharedPIDs, "logs": testLogs,
		"again": testAgain, "exec": testExec, "exec too long": testExecTimeout, "streams": testStreams, "hostile log path": testHostileLog,
		"kill -9": testCrash, "supervisor dies": testSupervisorDies, "statistics": testStats, "events": testEvents, "image volume": testImageVolume,
		"CDI": testCDI, "exec flood": testExecFlood, "hostile groups": testHostileGroups, "hostile labels": testHostileLabels, "forward into nothing": testForwardIntoNothing,
		"status afterwards": testStatusAfterwards, "masked paths": testMasked, "propagation": testPropagation, "memory runs out": testOutOfMemory, "resources": testResources, "resources of a pod": testPodResources, "resize": testResize, "metrics": testMetrics, "handlers": testHandlers, "mount options": testMountOptions, "ambient capabilities": testAmbient,
		"checkpoint": testCheckpoint, "checkpoint of a pod": testCheckpointPod, "CNI": testCNI, "CNI goes wrong": testBadCNI, "no CNI after all": testNoCNI, "CNI collects": testCollectCNI,
		"vanished clients": testVanishedClients, "hostile requests": testHostileRequests, "hostile volumes": testHostileVolumes,
		"user namespace": testUserNamespace, "user namespace on the host's network": testUserNamespaceHostNetwork, "no such user namespace": testUserNamespaceRefused,
	} {
		t.Run(name, func(t *testing.T) {
			was := n.t
			n.t = t
			defer func() { n.t = was }()
			test(t, n)
		})
	}
}

func testReady(t *testing.T, n *node) {
	v, err := n.Version(n.ctx(), &runtimeapi.VersionRequest{})
	if err != nil || v.RuntimeName != "cale" || v.RuntimeApiVersion != "v1" {
		t.Fatalf("%v, %v", v, err)
	}
	st, err := n.Status(n.ctx(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Info["config"]; !strings.Contains(got, `"root":"`+filepath.Join(n.dir, "root")+`"`) || !strings.Contains(got, `"streamAddress":"127.0.0.1:`) {
		t.Errorf("settings %s", got)
	}
	for _, c := range st.Status.Conditions {
		if !c.Status {
			t.Errorf("%s is not ready: %s", c.Type, c.Message)
		}
	}
	info, err := os.Stat(filepath.Join(n.dir, "run", "cri.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v", info.Mode(), err)
	}
}

func testImages(t *testing.T, n *node) {
	st, err := n.images.ImageStatus(n.ctx(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: n.image}})
	if err != nil || st.Image == nil || st.Image.Size == 0 {
		t.Fatalf("%v, %v", st, err)
	}
	if len(st.Image.RepoTags) != 1 || st.Image.RepoTags[0] != n.image || len(st.Image.RepoDigests) != 1 {
		t.Errorf("names %q, digests %q", st.Image.RepoTags, st.Image.RepoDigests)
	}
	none, err := n.images.ImageStatus(n.ctx(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "nothing:here"}})
	if err != nil || none.Image != nil {
		t.Errorf("%v, %v", none, err)
	}
	list, err := n.images.ListImages(n.ctx(), &runtimeapi.ListImagesRequest{Filter: &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: n.image}}})
	if err != nil || len(list.Images) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	fs, err := n.images.ImageFsInfo(n.ctx(), &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(fs.ImageFilesystems) != 1 || fs.ImageFilesystems[0].UsedBytes.GetValue() == 0 {
		t.Errorf("%v, %v", fs, err)
	}
	if _, err := n.images.RemoveImage(n.ctx(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "nothing:here"}}); err != nil {
		t.Error(err)
	}
}

func testPodOfTwo(t *testing.T, n *node) {
	p := n.podConfig("two")
	p.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "7"}
	p.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.9.8.7"}, Searches: []string{"example.test"}}
	id := n.pod(p)
	a := n.run(id, p, n.config("a", "sleep", "1000"))
	b := n.run(id, p, n.config("b", "sleep", "1000"))
	for _, ns := range []string{"net", "ipc", "uts"} {
		if x, y := n.sh(a, "readlink /proc/self/ns/"+ns), n.sh(b, "readlink /proc/self/ns/"+ns); x != y {
			t.Errorf("%s: %s and %s", ns, x, y)
		}
	}
	if x, y := n.sh(a, "readlink /proc/self/ns/pid"), n.sh(b, "readlink /proc/self/ns/pid"); x == y {
		t.Error("one pid namespace where each should have its own")
	}
	if got := n.sh(a, "hostname; cat /etc/hostname"); got != "two\ntwo" {
		t.Errorf("hostname %q", got)
	}
	if got := n.sh(a, "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start"); got != "1\n7" {
		t.Errorf("sysctls %q", got)
	}
	if got := n.sh(a, "cat /etc/resolv.conf"); !strings.Contains(got, "10.9.8.7") || !strings.Contains(got, "example.test") {
		t.Errorf("resolv.conf %q", got)
	}
	n.sh(a, "echo shared > /dev/shm/x")
	if got := n.sh(b, "cat /dev/shm/x"); got != "shared" {
		t.Errorf("/dev/shm %q", got)
	}
	st, err := n.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil || st.Status.Network.Ip == "" || st.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Fatalf("%v, %v", st, err)
	}
	if got := n.sh(a, "cat /etc/hosts"); !strings.Contains(got, st.Status.Network.Ip) {
		t.Errorf("hosts %q", got)
	}
	if _, err := n.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: a}); err != nil {
		t.Fatal(err)
	}
	if s := n.status(a); s.State != runtimeapi.ContainerState_CONTAINER_EXITED || s.ExitCode != 137 {
		t.Errorf("%v", s)
	}
	n.sh(b, "true") // the other one doesn't notice
	if _, err := n.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Fatal(err)
	}
	if s := n.status(b); s.State != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("%v", s)
	}
	for range 2 {
		if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := n.ListContainers(n.ctx(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: id}})
	if err != nil || len(list.Containers) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func testSharedPIDs(t *testing.T, n *node) {
	p := n.podConfig("pids")
	p.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	id := n.pod(p)
	c := n.config("a", "sleep", "1234")
	c.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: p.Linux.SecurityContext.NamespaceOptions}}
	n.run(id, p, c)
	c2 := n.config("b", "sleep", "1000")
	c2.Linux = c.Linux
	b := n.run(id, p, c2)
	if got := n.sh(b, "ps"); !strings.Contains(got, "sleep 1234") {
		t.Errorf("the other container's process isn't seen: %s", got)
	}
	if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Fatal(err)
	}
}

var logLine = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT[^ ]+ (stdout|stderr) [PF] (.*)$`)

func testLogs(t *testing.T, n *node) {
	p := n.podConfig("logs")
	id := n.pod(p)
	c := n.run(id, p, n.config("l", "/bin/sh", "-c", "echo one; echo two >&2; while [ ! -e /go ]; do sleep 0.1; done; echo three"))
	path := n.status(c).LogPath
	read := func(path string) (out string) {
		raw, _ := os.ReadFile(path)
		for _, m := range logLine.FindAllStringSubmatch(string(raw), -1) {
			out += m[1] + " " + m[2] + "\n"
		}
		return out
	}
	stack.Until(t, "output is in the log", func() bool { return strings.Contains(read(path), "stderr two") })
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.ReopenContainerLog(n.ctx(), &runtimeapi.ReopenContainerLogRequest{ContainerId: c}); err != nil {
		t.Fatal(err)
	}
	n.sh(c, "touch /go")
	if s := n.exited(c); s.ExitCode != 0 || s.Reason != "Completed" {
		t.Errorf("%v", s)
	}
	if got := read(path); got != "stdout three\n" {
		t.Errorf("after the rotation: %q", got)
	}
	if _, err := n.ReopenContainerLog(n.ctx(), &runtimeapi.ReopenContainerLogRequest{ContainerId: c}); err == nil {
		t.Error("the log of a container that has ended was reopened")
	}
}

// A request that comes again finds what the first one made (containerd#4604).
func testAgain(t *testing.T, n *node) {
	p := n.podConfig("again")
	id := n.pod(p)
	if other := n.pod(p); other != id {
		t.Errorf("%s and %s", id, other)
	}
	c := n.config("c", "sleep", "1000")
	one, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: c, SandboxConfig: p})
	if err != nil {
		t.Fatal(err)
	}
	two, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: c, SandboxConfig: p})
	if err != nil || one.ContainerId != two.ContainerId {
		t.Errorf("%v, %v, %v", one, two, err)
	}
	for range 2 {
		if _, err := n.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Fatal(err)
		}
	}
	for _, none := range []string{"0123456789", id + "0"} {
		if _, err := n.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: none}); err != nil {
			t.Error(err)
		}
		if _, err := n.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: none}); err != nil {
			t.Error(err)
		}
	}
	if _, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: n.config("d", "true"), SandboxConfig: p}); err == nil {
		t.Error("a container was put into a pod that is stopped")
	}
}

func testExec(t *testing.T, n *node) {
	p := n.podConfig("exec")
	c := n.run(n.pod(p), p, n.config("c", "sleep", "1000"))
	r, err := n.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"/bin/sh", "-c", "echo out; echo err >&2; exit 3"}})
	if err != nil || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" || r.ExitCode != 3 {
		t.Errorf("%v, %v", r, err)
	}
	// More output than is kept is no reason to stop, nor to grow (CVE-2022-31030).
	r, err = n.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"head", "-c", "20000000", "/dev/zero"}})
	if err != nil || len(r.Stdout) != maxOutput || r.ExitCode != 0 {
		t.Errorf("%d bytes, %v", len(r.GetStdout()), err)
	}
}

func testExecTimeout(t *testing.T, n *node) {
	p := n.podConfig("late")
	c := n.run(n.pod(p), p, n.config("c", "sleep", "1000"))
	_, err := n.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"/bin/sh", "-c", "sleep 4321 & sleep 4322"}, Timeout: 1})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v", err)
	}
	for range 3 { // when the answer comes, the process is gone: no moment later
		_, err := n.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"sleep", "5678"}, Timeout: 1})
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%v", err)
		}
		if got := n.sh(c, "ps"); strings.Contains(got, "sleep 5678") {
			t.Errorf("it is still there: %s", got)
		}
	}
	stack.Until(t, "the whole tree is gone", func() bool { return !strings.Contains(n.sh(c, "ps"), "sleep 432") })
}

func testStreams(t *testing.T, n *node) {
	p := n.podConfig("streams")
	id := n.pod(p)
	c := n.run(id, p, n.config("c", "sleep", "1000"))
	r, err := n.Exec(n.ctx(), &runtimeapi.ExecRequest{ContainerId: c, Cmd: []string{"true"}, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(r.Url)
	if err != nil || u.Hostname() != "127.0.0.1" {
		t.Fatalf("%s, %v", r.Url, err)
	}
	// A token serves once, also when the first use of it was no good.
	if code, _ := get(t, r.Url); code == 404 {
		t.Error("the first use found nothing")
	}
	if code, _ := get(t, r.Url); code != 404 {
		t.Errorf("the second use was answered with %d", code)
	}
	if _, err := n.PortForward(n.ctx(), &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: []int32{80}}); err != nil {
		t.Error(err)
	}
	if _, err := n.Exec(n.ctx(), &runtimeapi.ExecRequest{ContainerId: "0123456789", Cmd: []string{"true"}, Stdout: true}); status.Code(err) != codes.NotFound {
		t.Errorf("%v", err)
	}
}

// A log path may not lead out of the pod's directory (CVE-2024-5154 is of this kind).
func testHostileLog(t *testing.T, n *node) {
	p := n.podConfig("hostile")
	id := n.pod(p)
	for _, path := range []string{"../../etc/x", "/etc/x", "a/../../x"} {
		c := n.config("c", "true")
		c.LogPath = path
		if _, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: c, SandboxConfig: p}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func testCrash(t *testing.T, n *node) {
	p := n.podConfig("crash")
	id := n.pod(p)
	live := n.run(id, p, n.config("live", "sleep", "1000"))
	dies := n.run(id, p, n.config("dies", "/bin/sh", "-c", "while [ ! -e /go ]; do sleep 0.1; done; exit 7"))
	st, err := n.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		t.Fatal(err)
	}
	n.crash()
	after, err := n.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil || after.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY || after.Status.Network.Ip != st.Status.Network.Ip {
		t.Fatalf("%v, %v", after, err)
	}
	// What tells it to end may end with it.
	if _, err := n.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: dies, Cmd: []string{"touch", "/go"}, Timeout: 30}); err != nil {
		t.Fatal(err)
	}
	if s := n.exited(dies); s.ExitCode != 7 {
		t.Errorf("%v", s)
	}
	if s := n.status(live); s.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("%v", s)
	}
	n.run(id, p, n.config("new", "true")) // the pod takes more
	if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "run", "pods", id)); err == nil {
		t.Error("the pod's directory is still there")
	}
}

func testStats(t *testing.T, n *node) {
	p := n.podConfig("stats")
	id := n.pod(p)
	c := n.config("c", "sleep", "1000")
	c.Linux = &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 512}}
	cid := n.run(id, p, c)
	st, err := n.ContainerStats(n.ctx(), &runtimeapi.ContainerStatsRequest{ContainerId: cid})
	if err != nil || st.Stats.Cpu.GetUsageCoreNanoSeconds() == nil || st.Stats.Memory.GetWorkingSetBytes() == nil {
		t.Fatalf("%v, %v", st, err)
	}
	pst, err := n.PodSandboxStats(n.ctx(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: id})
	if err != nil || len(pst.Stats.Linux.Containers) != 1 {
		t.Fatalf("%v, %v", pst, err)
	}
	if _, err := n.UpdateContainerResources(n.ctx(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: cid, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20}}); err != nil {
		t.Fatal(err)
	}
	if got := n.status(cid).Resources.Linux; got.MemoryLimitInBytes != 128<<20 || got.CpuShares != 512 {
		t.Errorf("%v", got)
	}
}

func testImageVolume(t *testing.T, n *node) {
	p := n.podConfig("volume")
	id := n.pod(p)
	c := n.config("c", "sleep", "1000")
	img := &runtimeapi.ImageSpec{Image: n.image}
	c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/img", Readonly: true, Image: img}, {ContainerPath: "/part", Readonly: true, Image: img, ImageSubPath: "bin"}}
	cid := n.run(id, p, c)
	n.sh(cid, "/img/bin/busybox true && /part/busybox true && ! touch /img/x 2>/dev/null")
	if got := n.status(cid).Mounts; len(got) != 2 || got[0].Image.ImageRef == "" {
		t.Errorf("%v", got)
	}
	for _, bad := range []*runtimeapi.Mount{{ContainerPath: "/img", Image: img}, {ContainerPath: "/img", Readonly: true, Image: img, ImageSubPath: "../.."},
		{ContainerPath: "/img", Readonly: true, Image: img, ImageSubPath: "not/there"}} {
		c := n.config("bad", "true")
		c.Mounts = []*runtimeapi.Mount{bad}
		if _, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: c, SandboxConfig: p}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
