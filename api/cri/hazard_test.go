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
