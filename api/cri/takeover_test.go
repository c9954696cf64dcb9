package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/test/stack"
)

// testSupervisorDies kills what supervises a pod of several containers, alone and with the daemon: they go on, with
// their logs and exit codes, and the pod takes more.
func testSupervisorDies(t *testing.T, n *node) {
	pc := n.podConfig("takeover")
	pod := n.pod(pc)
	defer n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
	const script = "trap 'exit %d' TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"
	var ids []string
	for i := range 3 {
		ids = append(ids, n.run(pod, pc, n.config(fmt.Sprint("c", i), "/bin/sh", "-c", fmt.Sprintf(script, 10+i))))
	}
	created, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: n.config("later", "/bin/sleep", "1000"), SandboxConfig: pc})
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(n.dir, "run")
	for round, crash := range []bool{false, true} {
		old := stack.Supervisor(t, run, pod)
		if crash {
			n.cmd.Process.Signal(syscall.SIGSTOP) // so that it doesn't see the other one's end
			stack.Kill(t, old)
			n.crash()
		} else {
			stack.Kill(t, old)
		}
		stack.Until(t, "another supervisor has come", func() bool {
			now := stack.Supervisor(t, run, pod)
			return now != 0 && now != old
		})
		for i, id := range ids {
			if st := n.status(id); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
				t.Fatalf("round %d: container %d: %v", round, i, st)
			}
			if out := n.sh(id, "echo here"); out != "here" {
				t.Errorf("round %d: container %d: %q", round, i, out)
			}
		}
	}
	if _, err := n.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		t.Error(err)
	}
	if out := n.sh(created.ContainerId, "echo there"); out != "there" {
		t.Errorf("a container started afterwards: %q", out)
	}
	for i, id := range ids {
		if _, err := n.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: 30}); err != nil {
			t.Fatal(err)
		}
		if st := n.exited(id); st.ExitCode != int32(10+i) {
			t.Errorf("container %d ended with %d", i, st.ExitCode)
		}
		raw, err := os.ReadFile(filepath.Join(n.logs, fmt.Sprintf("c%d.log", i)))
		if err != nil {
			t.Fatal(err)
		}
		for j, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
			if !strings.HasSuffix(line, fmt.Sprint(" line ", j+1)) {
				t.Fatalf("container %d, line %d of the log: %q", i, j+1, line)
			}
		}
	}
}
