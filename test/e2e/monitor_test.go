package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/stack"

	"golang.org/x/sys/unix"
)

// TestPressure: what tasks waited is told where the kernel counts it, and Docker's client minds no field.
func TestPressure(t *testing.T) {
	s := stack.New(t)
	s.Cale("run", "-d", "--name", "busy", "--cpus", "0.1", s.Busybox(), "sh", "-c", "while :; do :; done").OK(t)
	counted := false
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if found, _ := filepath.Glob(dir + "/*.pressure"); len(found) > 0 {
			if _, err := os.ReadFile(dir + "/cpu.pressure"); err == nil {
				counted = true
			}
		}
	}
	out := s.Cale("stats", "--no-stream", "--format", "{{.Pressure}}", "busy").OK(t)
	if !counted {
		if out != "not counted\n" {
			t.Errorf("without the kernel's counting there is %q", out)
		}
		return
	}
	stack.Until(t, "a container held to a tenth of a processor waits for it", func() bool {
		var row struct{ Pressure string }
		if err := json.Unmarshal([]byte(s.Cale("stats", "--no-stream", "--format", "json", "busy").OK(t)), &row); err != nil {
			t.Fatal(err)
		}
		return strings.Count(row.Pressure, "%") == 3 && !strings.HasPrefix(row.Pressure, "0.00%")
	})
	if head, _, _ := strings.Cut(s.Cale("stats", "--no-stream").OK(t), "\n"); !strings.Contains(head, "BLOCK I/O") || !strings.Contains(head, "PSI") {
		t.Errorf("the table's head is %q", head)
	}
	for _, c := range clients(t) {
		s.Do("", c, "stats", "--no-stream", "busy").OK(t)
	}
}

// TestMonitor: the live view sorts by keys, shows the chosen one's log and goes back, and leaves the terminal as it was.
func TestMonitor(t *testing.T) {
	s := stack.New(t)
	s.Cale("run", "-d", "--name", "idle", s.Busybox(), "sleep", "1000").OK(t)
	s.Cale("run", "-d", "--name", "busy", "--health-cmd", "true", "--health-interval", "100ms", s.Busybox(), "sh", "-c", "echo so busy; while :; do :; done").OK(t)
	if r := s.Cale("monitor"); r.Code != 1 || !strings.Contains(r.Stderr, "needs a terminal") {
		t.Errorf("without a terminal: %d %s", r.Code, r.Stderr)
	}
	term := s.Terminal("cale", "monitor", "--interval", "100ms")
	term.Resize(24, 200)
	term.Expect("(healthy)")
	term.Expect("2 containers, by cpu")
	if !term.Raw() {
		t.Error("keys would have to be followed by a newline")
	}
	term.Type("a")
	term.Expect("by name")
	term.Type("r")
	term.Expect("by name reversed")
	term.Type("c") // of the reversed, busy is the last: one up and down
	term.Expect("by cpu reversed")
	term.Type("r\x1b[A\x1b[A")
	term.Type("l")
	term.Expect("log of busy")
	term.Expect("so busy")
	term.Type("q")
	term.Type("m")
	term.Expect("by memory")
	term.Type("q")
	if code := term.Exit(); code != 0 {
		t.Errorf("quitting ends with %d", code)
	}
	if !strings.HasSuffix(term.Screen(), "\x1b[?25h\x1b[?1049l") {
		t.Errorf("the screen is not given back: %q", term.Screen()[max(0, len(term.Screen())-100):])
	}
	if term.Raw() {
		t.Error("the terminal stays raw")
	}

	term = s.Terminal("cale", "monitor")
	term.Expect("by cpu")
	term.Signal(unix.SIGTERM)
	term.Exit()
	if term.Raw() || !strings.HasSuffix(term.Screen(), "\x1b[?25h\x1b[?1049l") {
		t.Error("a signal leaves the terminal raw")
	}
}
