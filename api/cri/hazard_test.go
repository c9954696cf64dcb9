package cri

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/test/images"
	"cale/test/stack"
)

// Probes without end, some cut short by their client: nothing of them stays, neither here nor in the container
// (CVE-2022-23471 and CVE-2025-64329 are leaks of this kind).
func testExecFlood(t *testing.T, n *node) {
	p := n.podConfig("flood")
	c := n.run(n.pod(p), p, n.config("c", "sleep", "1000"))
	files := func() int {
		list, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(n.cmd.Process.Pid), "fd"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	n.sh(c, "true")
	before, goroutines := files(), n.goroutines()
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for i := range 20 {
				ctx, cancel := context.WithTimeout(n.ctx(), stack.Patience)
				cmd := []string{"true"}
				if i%5 == 0 { // the client leaves
					cmd = []string{"sleep", "5432"}
					time.AfterFunc(50*time.Millisecond, cancel)
				}
				r, err := n.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: cmd})
				if i%5 != 0 && (err != nil || r.ExitCode != 0) {
					t.Errorf("%v, %v", r, err)
				}
				cancel()
			}
		})
	}
	workers.Wait()
	stack.Until(t, "nothing of them runs", func() bool { return !strings.Contains(n.sh(c, "ps"), "sleep 5432") })
	stack.Until(t, "their descriptors are closed", func() bool { return files() <= before+4 }) // connections may have come meanwhile
	stack.Until(t, "their goroutines have ended", func() bool { return n.goroutines() <= goroutines+4 })
}

// What an image says of itself steers nothing, however it is named (CVE-2026-53488: a label became where the log goes).
func testHostileLabels(t *testing.T, n *node) {
	files, err := images.BusyboxFiles()
	if err != nil {
		t.Fatal(err)
	}
	evil := filepath.Join(n.dir, "evil")
	labels := map[string]string{}
	for _, name := range []string{"io.kubernetes.container.logpath", "io.kubernetes.cri.log-path", "containerd.io/restart.loguri", "io.cri-containerd.log",
		"io.containerd.runtime.log", "cale.landlock", "cale.log", "cdi.k8s.io/x", "io.kubernetes.cri-o.LogPath", "run.oci.hooks"} {
		labels[name] = "binary:///bin/touch?" + evil
	}
	img, err := images.New(images.Spec{Layers: [][]images.File{files}, Run: images.Run{Labels: labels}})
	if err != nil {
		t.Fatal(err)
	}
	registry, _, _ := strings.Cut(n.image, "/")
	if err := img.Push(n.ctx(), registry, "labelled:latest"); err != nil {
		t.Fatal(err)
	}
	name := registry + "/labelled:latest"
	if _, err := n.images.PullImage(n.ctx(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: name}}); err != nil {
		t.Fatal(err)
	}
	defer n.images.RemoveImage(n.ctx(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: name}})
	p := n.podConfig("labels")
	pod := n.pod(p)
	c := n.config("labelled", "sleep", "1000")
	c.Image.Image, c.Labels = name, map[string]string{"asked": "for"}
	id := n.run(pod, p, c)
	if st := n.status(id); len(st.Labels) != 1 || len(st.Annotations) > 0 || st.LogPath != filepath.Join(n.logs, "labelled.log") {
		t.Errorf("%v", st)
	}
	raw, err := os.ReadFile(filepath.Join(n.dir, "run", "pods", pod, id, "config.json"))
	if err != nil || strings.Contains(string(raw), "/bin/touch") {
		t.Errorf("the runtime is told: %s, %v", raw, err)
	}
	if _, err := os.Lstat(evil); err == nil {
		t.Error("a label was carried out")
	}
	if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
		t.Error(err)
	}
}

// Where nobody listens a client is told so, and nothing of it stays.
func testForwardIntoNothing(t *testing.T, n *node) {
	pod := n.pod(n.podConfig("nothing"))
	forward := func() string {
		r, err := n.PortForward(n.ctx(), &runtimeapi.PortForwardRequest{PodSandboxId: pod, Port: []int32{4711}})
		if err != nil {
			t.Fatal(err)
		}
		config, err := websocket.NewConfig("ws"+strings.TrimPrefix(r.Url, "http"), "http://localhost")
		if err != nil {
			t.Fatal(err)
		}
		config.Protocol = []string{"v4.channel.k8s.io"}
		ws, err := config.DialContext(n.ctx())
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		ws.SetDeadline(time.Now().Add(stack.Patience))
		said := ""
		for {
			var m []byte
			if err := websocket.Message.Receive(ws, &m); err != nil {
				return said
			}
			if len(m) > 3 && m[0] == 1 { // the port's errors; the first message is its number
				said += string(m[1:])
			}
		}
	}
	if said := forward(); !strings.Contains(said, "refused") {
		t.Errorf("told %q", said)
	}
	before := n.goroutines()
	for range 30 {
		forward()
	}
	stack.Until(t, "nothing of them stays", func() bool { return n.goroutines() <= before+4 })
}

// The user files of an image are read, and bounded: what a container puts there afterwards can be anything
// (CVE-2024-5154, CVE-2025-0750 and a huge passwd are of this kind).
func testHostileGroups(t *testing.T, n *node) {
	p := n.podConfig("groups")
	c := n.run(n.pod(p), p, n.config("c", "sleep", "1000"))
	for name, make := range map[string]string{
		"a link to the host": "rm -f /etc/group; ln -s /proc/1/root/../../../../etc/shadow /etc/group",
		"a pipe":             "rm -f /etc/group; mkfifo /etc/group",
		"a device":           "rm -f /etc/passwd; ln -s /dev/zero /etc/passwd",
		"endless":            "rm -f /etc/passwd; head -c 3000000 /dev/zero | tr '\\0' 'a' > /etc/passwd",
	} {
		// Whether such a container can still be entered is its own affair: nobody else may wait or fall for it.
		done := make
		ctx, cancel := context.WithTimeout(n.ctx(), 20*time.Second)
		_, _ = n.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"/bin/sh", "-c", done}})
		_, _ = n.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"true"}})
		if ctx.Err() != nil {
			t.Errorf("%s: an exec waits for it", name)
		}
		cancel()
	}
	if _, err := n.ListContainers(n.ctx(), &runtimeapi.ListContainersRequest{}); err != nil {
		t.Error(err)
	}
}

// What a request can't have of the host it is refused, by whatever name it asks (CVE-2022-0811; CVE-2024-40635).
func testHostileRequests(t *testing.T, n *node) {
	const pattern = "/proc/sys/kernel/core_pattern"
	was, err := os.ReadFile(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kernel.core_pattern", "kernel/core_pattern", "net/../kernel/core_pattern", "net.../kernel/core_pattern", "net..kernel", "/proc/sys/kernel/core_pattern",
		"net.ipv4.ip_forward\x00", "kernel.shm_rmid_forced=1+kernel.core_pattern", "net.ipv4.ip_forward kernel.core_pattern", "", "vm.swappiness"} {
		p := n.podConfig("sysctl")
		p.Linux.Sysctls = map[string]string{name: "|/bin/touch /evil"}
		if _, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: p}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("sysctl %q: %v", name, err)
		}
	}
	p := n.podConfig("value") // a value is one value, whatever the kernel makes of it
	p.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "1\nkernel.core_pattern=|/bin/touch", "kernel.shm_rmid_forced": "1+kernel.core_pattern=|/bin/touch"}
	if r, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: p}); err == nil {
		if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: r.PodSandboxId}); err != nil {
			t.Error(err)
		}
	}
	if is, err := os.ReadFile(pattern); err != nil || string(is) != string(was) {
		t.Errorf("%s is %q, %v", pattern, is, err)
	}

	p = n.podConfig("users")
	pod := n.pod(p)
	for what, sec := range map[string]*runtimeapi.LinuxContainerSecurityContext{
		"2^32":                {RunAsUser: &runtimeapi.Int64Value{Value: 1 << 32}},
		"2^31 and some":       {RunAsUser: &runtimeapi.Int64Value{Value: 1<<32 + 1000}},
		"-1":                  {RunAsUser: &runtimeapi.Int64Value{Value: -1}},
		"group of 2^32":       {RunAsUser: &runtimeapi.Int64Value{Value: 1}, RunAsGroup: &runtimeapi.Int64Value{Value: 1 << 32}},
		"name that begins so": {RunAsUsername: "1000x"},
		"name of 2^32":        {RunAsUsername: "4294967296"},
		"name and group":      {RunAsUsername: "root:0"},
		"supplementary 2^32":  {SupplementalGroups: []int64{1 << 32}},
		"supplementary -1":    {SupplementalGroups: []int64{-1}},
	} {
		c := n.config("u", "true")
		c.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: sec}
		r, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: p})
		if err == nil {
			if _, err = n.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: r.ContainerId}); err == nil {
				t.Errorf("user %s: it runs as %v", what, n.status(r.ContainerId).User)
			}
			if _, err := n.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: r.ContainerId}); err != nil {
				t.Error(err)
			}
		}
	}
}

// An image's volumes are places in the container, however they are written, and hold what the image has there
// (CVE-2022-23648: they held files of the host).
func testHostileVolumes(t *testing.T, n *node) {
	files, err := images.BusyboxFiles()
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(n.dir, "secret")
	if err := os.Mkdir(secret, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(secret, "key"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	files = append(files, images.File{Name: "way", Symlink: "../../../../../.."}, images.File{Name: "direct", Symlink: secret})
	registry, _, _ := strings.Cut(n.image, "/")
	p := n.podConfig("volumes")
	pod := n.pod(p)
	for i, volume := range []string{"/../../../../../.." + secret, "/way" + secret, "/direct", "way/../.." + secret} {
		img, err := images.New(images.Spec{Layers: [][]images.File{files}, Run: images.Run{Volumes: map[string]struct{}{volume: {}}}})
		if err != nil {
			t.Fatal(err)
		}
		name := "volumes:" + strconv.Itoa(i)
		if err := img.Push(n.ctx(), registry, name); err != nil {
			t.Fatal(err)
		}
		spec := &runtimeapi.ImageSpec{Image: registry + "/" + name}
		if _, err := n.images.PullImage(n.ctx(), &runtimeapi.PullImageRequest{Image: spec}); err != nil {
			t.Fatal(err)
		}
		c := n.config("v", "sleep", "1000")
		c.Image, c.Metadata.Attempt = spec, uint32(i)
		r, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: p})
		if err == nil {
			if _, err := n.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: r.ContainerId}); err == nil {
				if got := n.sh(r.ContainerId, "cat "+secret+"/key /direct/key /way"+secret+"/key 2>/dev/null || true; echo x > "+secret+"/written 2>/dev/null || true"); got != "" {
					t.Errorf("%s: the container reads %q", volume, got)
				}
			}
			if _, err := n.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: r.ContainerId}); err != nil {
				t.Error(err)
			}
		}
		if list, err := os.ReadDir(secret); err != nil || len(list) != 1 {
			t.Errorf("%s: on the host there is %v, %v", volume, list, err)
		}
		if _, err := n.images.RemoveImage(n.ctx(), &runtimeapi.RemoveImageRequest{Image: spec}); err != nil {
			t.Error(err)
		}
	}
}
