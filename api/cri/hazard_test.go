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

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

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
	before := files()
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
