package engines

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/stack"
)

// TestContainerd: containerd by its shim for runc with our runtime's name, and by our own shim. $CALE_CONTAINERD is a
// folder with another containerd than the one installed.
func TestContainerd(t *testing.T) {
	if dir := os.Getenv("CALE_CONTAINERD"); dir != "" {
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	}
	need(t, "containerd", "ctr", "containerd-shim-runc-v2")
	dir, bin := folder(t), stack.Programs(t)
	// A runtime "io.containerd.cale.v2" is a program of this name.
	if err := os.Symlink(filepath.Join(bin, "cale-shim"), filepath.Join(dir, "containerd-shim-cale-v2")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	layout := filepath.Join(dir, "layout")
	if err := busybox(t).WriteLayout(layout, "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", layout, "-cf", dir+"/image.tar", ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	write(t, dir+"/config.toml", `version = 2
root = "`+dir+`/root"
state = "`+dir+`/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "`+dir+`/sock"
`)
	// The namespace is also the control groups' parent.
	e := engine{t: t, command: []string{"ctr", "--address", dir + "/sock", "--namespace", parent}, image: "busybox:latest"}
	daemon(t, e, dir+"/containerd.log", "containerd", "--config", dir+"/config.toml")
	e.ok("images", "import", "--all-platforms", dir+"/image.tar")
	for name, flags := range map[string][]string{
		"runc's shim": {"--runtime", "io.containerd.runc.v2", "--runc-binary", filepath.Join(bin, "cale-oci")},
		"our shim":    {"--runtime", "io.containerd.cale.v2"},
	} {
		t.Run(name, func(t *testing.T) {
			e := e
			e.t = t
			tasks(e, flags)
		})
	}
}

// tasks tries what containerd does with a shim.
func tasks(e engine, flags []string) {
	t := e.t
	run := func(more ...string) []string { return append(append([]string{"run"}, flags...), more...) }

	if out := e.ok(run("--rm", e.image, "a1", "echo", "hello")...); out != "hello" {
		t.Errorf("run says %q", out)
	}
	e.says(7, "", run("--rm", e.image, "a2", "sh", "-c", "exit 7")...)
	r := e.do(run("--rm", e.image, "a3", "nosuch")...)
	if r.Code == 0 || !strings.Contains(r.Stderr, `exec: "nosuch": executable file not found in $PATH`) || strings.Contains(r.Stderr, "proto") {
		t.Errorf("run of what is not there: %d, %s", r.Code, r.Stderr)
	}
	e.says(0, "Seccomp:\t2", run("--rm", "--seccomp", e.image, "a4", "grep", "Seccomp:", "/proc/self/status")...)
	e.says(137, "", run("--rm", "--memory-limit", "16777216", e.image, "a5", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")...)
	terminal(t, stack.OnTerminal(t, e.cmd(run("--rm", "--tty", e.image, "a6", "sh")...)))

	e.ok(run("--detach", e.image, "one", "sh", "-c", untilTerm)...)
	defer func() {
		e.do("tasks", "kill", "--signal", "SIGKILL", "one")
		e.do("tasks", "delete", "--force", "one")
		e.do("containers", "delete", "one")
	}()
	if out := e.ok("tasks", "exec", "--exec-id", "e1", "one", "echo", "inside"); out != "inside" {
		t.Errorf("exec says %q", out)
	}
	e.says(9, "", "tasks", "exec", "--exec-id", "e2", "one", "sh", "-c", "exit 9")
	e.says(1, "nosuch", "tasks", "exec", "--exec-id", "e3", "one", "nosuch")
	typed(e, "tasks", "exec", "--exec-id", "e4", "one", "cat")
	terminal(t, stack.OnTerminal(t, e.cmd("tasks", "exec", "--tty", "--exec-id", "e5", "one", "sh")))
	e.says(0, "PID", "tasks", "ps", "one")
	e.says(0, "memory.usage", "tasks", "metrics", "one")

	status := func(want string) {
		t.Helper()
		for line := range strings.Lines(e.ok("tasks", "list")) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "one" {
				if f[2] != want {
					t.Errorf("the task is %s, not %s", f[2], want)
				}
				return
			}
		}
		t.Errorf("there is no task")
	}
	status("RUNNING")
	e.ok("tasks", "pause", "one")
	status("PAUSED")
	e.ok("tasks", "resume", "one")
	status("RUNNING")
	e.ok("tasks", "kill", "--signal", "SIGTERM", "one")
	stack.Until(t, "the task has stopped", func() bool { return strings.Contains(e.ok("tasks", "list"), "STOPPED") })
	e.says(0, "3", "tasks", "delete", "one")
}

// typed types to a process that answers, then ends its input. ctr forgets an end that comes before the process is there.
func typed(e engine, args ...string) {
	e.t.Helper()
	cmd := e.cmd(args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	io.WriteString(in, "typed")
	answer := make([]byte, 5)
	if _, err := io.ReadFull(out, answer); err != nil || string(answer) != "typed" {
		e.t.Errorf("the answer is %q, %v", answer, err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		e.t.Errorf("%s: %v", strings.Join(args, " "), err)
	}
}
