package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"cale/test/stack"
)

// criuUsable says why there can be no checkpoints here, or "".
func criuUsable() string {
	if _, err := exec.LookPath("criu"); err != nil {
		return "criu is not installed"
	}
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		return "criu can't work here: " + strings.TrimSpace(string(out))
	}
	return ""
}

// counter is a container that counts the lines it is sent through a pipe in its file system.
const counter = `mkfifo /q; n=0; while :; do read l </q || continue; n=$((n+1)); echo "$n $l"; done`

// TestCheckpoint: a container goes on where it was, after its end, as often as one likes; also at its port.
func TestCheckpoint(t *testing.T) {
	if why := criuUsable(); why != "" {
		t.Skip(why)
	}
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		do := func(args ...string) stack.Result { return s.Do("", client, args...) }
		name := "counter" + strings.ReplaceAll(client, "/", "-")
		port := fmt.Sprint(stack.FreePort(t))
		do("run", "-d", "--name", name, "--restart", "always", "-p", port+":80", s.Busybox(), "sh", "-c", "httpd -h /etc; "+counter).OK(t)
		send := func(line string) {
			t.Helper()
			do("exec", name, "sh", "-c", "until [ -p /q ]; do sleep 0.01; done; echo "+line+" >/q").OK(t)
		}
		logged := func(line string) {
			t.Helper()
			stack.Until(t, "the log has "+line, func() bool { return strings.Contains(do("logs", name).Stdout, line+"\n") })
		}
		send("a")
		logged("1 a")
		if out := do("checkpoint", "create", "--leave-running", name, "first").OK(t); out != "first\n" {
			t.Errorf("create prints %q", out)
		}
		do("checkpoint", "create", name, "first").Exit(t, 1)
		send("b")
		logged("2 b")
		outside := t.TempDir()
		do("checkpoint", "create", "--checkpoint-dir", outside, name, "second").OK(t)
		if st := do("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name).OK(t); st != "exited 137\n" {
			t.Errorf("after a checkpoint it is %q", st)
		}
		if out := do("checkpoint", "ls", name).OK(t); strings.Join(strings.Fields(out), " ") != "CHECKPOINT NAME first" {
			t.Errorf("ls: %q", out)
		}
		if out := do("checkpoint", "ls", "--checkpoint-dir", outside, name).OK(t); !strings.Contains(out, "second") {
			t.Errorf("ls of a directory: %q", out)
		}
		if r := do("start", "--checkpoint", "third", name).Exit(t, 1); !strings.Contains(r.Stderr, "checkpoint third does not exist") {
			t.Errorf("start of none: %s", r.Stderr)
		}
		do("start", "--checkpoint-dir", outside, "--checkpoint", "second", name).OK(t)
		send("c")
		logged("3 c")
		stack.Until(t, "its port answers", func() bool {
			return strings.Contains(s.Do("", "wget", "-q", "-O-", "http://127.0.0.1:"+port+"/passwd").Stdout, "root")
		})
		do("stop", "-t", "0", name).OK(t)
		do("start", "--checkpoint", "first", name).OK(t)
		send("again")
		logged("2 again")
		for _, args := range [][]string{{"start", "--checkpoint", "../outside", name}, {"checkpoint", "create", name, "../outside"}} {
			if r := do(args...).Exit(t, 1); !strings.Contains(r.Stderr, `invalid checkpoint ID "../outside"`) {
				t.Errorf("%s: %s", args, r.Stderr)
			}
		}
		do("checkpoint", "rm", name, "first").OK(t)
		do("checkpoint", "rm", name, "first").Exit(t, 1)
		do("rm", "-f", name).OK(t)
	})
}

// TestCheckpointTerminal: whoever attaches to a restored terminal talks to the same shell.
func TestCheckpointTerminal(t *testing.T) {
	if why := criuUsable(); why != "" {
		t.Skip(why)
	}
	s := stack.New(t)
	s.Cale("run", "-dit", "--network", "none", "--name", "shell", s.Busybox(), "sh", "-c", "x=kept; "+counter).OK(t)
	s.Cale("exec", "shell", "sh", "-c", "until [ -p /q ]; do sleep 0.01; done; echo a >/q").OK(t)
	stack.Until(t, "it answers", func() bool { return strings.Contains(s.Cale("logs", "shell").Stdout, "1 a") })
	s.Cale("checkpoint", "create", "shell", "c1").OK(t)
	s.Cale("start", "--checkpoint", "c1", "shell").OK(t)
	s.KillEngine() // the next one finds it as any other
	s.Cale("exec", "shell", "sh", "-c", "echo b >/q").OK(t)
	stack.Until(t, "it goes on", func() bool { return strings.Contains(s.Cale("logs", "shell").Stdout, "2 b") })
}

// TestCheckpointWithoutCRIU: the error says what is missing, and the container is none the worse.
func TestCheckpointWithoutCRIU(t *testing.T) {
	if _, err := exec.LookPath("criu"); err == nil {
		t.Skip("criu is installed")
	}
	s := stack.New(t)
	s.Cale("run", "-d", "--name", "sleeper", "--network", "none", s.Busybox(), "sleep", "1000").OK(t)
	if r := s.Cale("checkpoint", "create", "sleeper", "first").Exit(t, 1); !strings.Contains(r.Stderr, "criu is not installed") {
		t.Error(r.Stderr)
	}
	if st := s.Cale("inspect", "--format", "{{.State.Status}}", "sleeper").OK(t); st != "running\n" {
		t.Errorf("it is %q", st)
	}
	if out := s.Cale("checkpoint", "ls", "sleeper").OK(t); strings.Contains(out, "first") {
		t.Errorf("ls: %q", out)
	}
}
