package e2e

import (
	"strings"
	"testing"

	"cale/test/stack"
)

// TestExplain: why containers ended or did not start, and what those that run are refused.
func TestExplain(t *testing.T) {
	s := stack.New(t)
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"fine", []string{"true"}, []string{"fine has exited.", "with 0"}},
		{"failed", []string{"sh", "-c", "exit 3"}, []string{"ended by itself, with 3", "cale logs failed"}},
		{"segv", []string{"sh", "-c", "sh -c 'kill -SEGV $$'; exit $?"}, []string{"SIGSEGV"}},
		{"missing", []string{"/nothing"}, []string{"missing was created, and does not run.", "start:", "no such program"}},
		{"refused", []string{"/etc/passwd"}, []string{"start:", "may not be executed"}},
		{"memory", []string{"sh", "-c", "head -c 100000000 /dev/zero > /dev/shm/x"}, []string{"oom:", "its limit is 16MiB", "--memory"}},
		{"forks", []string{"sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait; exit 4"}, []string{"as many processes as it may, and was refused more", "--pids-limit"}},
		{"readonly", []string{"touch", "/file"}, []string{"its root is read-only", "--tmpfs"}},
	} {
		args := []string{"run", "--name", c.name}
		switch c.name {
		case "forks":
			args = append(args, "--pids-limit", "4")
		case "readonly":
			args = append(args, "--read-only")
		}
		if c.name == "memory" {
			args = append(args, "--memory", "16m", "--memory-swap", "16m", "--shm-size", "200m")
		}
		s.Cale(append(append(args, s.Busybox()), c.args...)...)
		out := s.Cale("explain", c.name).OK(t)
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in:\n%s", c.name, w, out)
			}
		}
		s.Cale("rm", c.name)
	}
	s.Cale("run", "-d", "--name", "runs", "--pids-limit", "1", "--security-opt", "no-new-privileges", s.Busybox(), "sleep", "1000").OK(t)
	out := s.Cale("explain", "runs").OK(t)
	for _, w := range []string{"runs is running.", "CAP_SYS_ADMIN", "seccomp:", "no-new-privileges", "as many processes as it may: 1"} {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in:\n%s", w, out)
		}
	}
	if strings.Contains(out, "CAP_CHOWN") {
		t.Errorf("it has CAP_CHOWN:\n%s", out)
	}
	s.Cale("stop", "-t", "0", "runs").OK(t)
	if out := s.Cale("explain", "runs").OK(t); !strings.Contains(out, "a client had asked for its end") {
		t.Errorf("after stop:\n%s", out)
	}
	if r := s.Cale("explain", "nobody").Exit(t, 1); !strings.Contains(r.Stderr, "No such container: nobody") {
		t.Error(r.Stderr)
	}
}
