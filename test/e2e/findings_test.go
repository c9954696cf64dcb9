package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cale/test/stack"

	"golang.org/x/sys/unix"
)

// TestEmptyCommand: the empty command is one that isn't found, in run and in exec.
func TestEmptyCommand(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		r := s.Do("", client, "run", "--rm", s.Busybox(), "")
		if r.Code != 127 || !strings.Contains(r.Stderr, `exec: "": executable file not found in $PATH`) {
			t.Errorf("run: %d %s", r.Code, r.Stderr)
		}
		s.Do("", client, "run", "-d", "--name", "box", s.Busybox(), "sleep", "1000").OK(t)
		defer s.Do("", client, "rm", "-f", "box")
		if r := s.Do("", client, "exec", "box", ""); r.Code != 127 {
			t.Errorf("exec: %d %s", r.Code, r.Stderr)
		}
	})
}

// TestStoppedSupervisor: a supervisor that somebody has stopped holds nobody up for ever, and is told of; its container
// can be removed.
func TestStoppedSupervisor(t *testing.T) {
	s := stack.New(t)
	id := strings.TrimSpace(s.Cale("run", "-d", "--name", "box", s.Busybox(), "sleep", "1000").OK(t))
	pid := s.Supervisor(id)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if r := s.Cale("exec", "box", "true"); r.Code != 126 || !strings.Contains(r.Stderr+r.Stdout, "is stopped (SIGSTOP)") {
		t.Errorf("exec: %d %s", r.Code, r.Stderr)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("that takes %s", took)
	}
	unix.Kill(pid, unix.SIGCONT)
	s.Cale("exec", "box", "true").OK(t)
	unix.Kill(pid, unix.SIGSTOP)
	s.Cale("rm", "-f", "box").OK(t)
}

// TestPortsOfStopped: as Docker has it, no port is shown of what doesn't run.
func TestPortsOfStopped(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		s.Do("", client, "run", "-d", "--name", "box", "--expose", "90", s.Busybox(), "sleep", "1000").OK(t)
		defer s.Do("", client, "rm", "-f", "box")
		if out := s.Do("", client, "ps", "--format", "{{.Ports}}").OK(t); out != "90/tcp\n" {
			t.Errorf("running: %q", out)
		}
		s.Do("", client, "stop", "-t", "0", "box").OK(t)
		if out := s.Do("", client, "ps", "-a", "--format", "{{.Ports}}").OK(t); out != "\n" {
			t.Errorf("stopped: %q", out)
		}
	})
}

// TestCopyOntoDevice: a file that is copied onto a device doesn't take its place, in a container or here.
func TestCopyOntoDevice(t *testing.T) {
	s := stack.New(t)
	s.Cale("run", "-d", "--name", "box", s.Busybox(), "sleep", "1000").OK(t)
	if r := s.Cale("cp", "/etc/hostname", "box:/dev/null"); r.Code != 1 || !strings.Contains(r.Stderr, `destination "box:/dev/null" must be a directory or a regular file`) {
		t.Errorf("into the container: %d %s", r.Code, r.Stderr)
	}
	s.Cale("exec", "box", "test", "-c", "/dev/null").OK(t)
	node := filepath.Join(t.TempDir(), "null")
	if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Skip(err)
	}
	if r := s.Cale("cp", "box:/etc/passwd", node); r.Code != 1 || !strings.Contains(r.Stderr, "got a device") {
		t.Errorf("out of it: %d %s", r.Code, r.Stderr)
	}
	if st, err := os.Stat(node); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("the device is %v, %v", st.Mode(), err)
	}
}
