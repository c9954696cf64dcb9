package e2e

import (
	"strings"
	"testing"

	"cale/test/stack"
)

// TestTerminal: run -it, a resize, detaching and attaching again, exec -it.
func TestTerminal(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		term := s.Terminal(client, "run", "-it", "--name", "tty", s.Busybox(), "sh")
		defer s.Cale("rm", "-f", "tty")
		term.Type("echo $((40+2)) $TERM; tty\n")
		term.Expect("42 xterm")
		term.Expect("/dev/pts/0")
		// The size arrives soon after the start, and again when it changes.
		stack.Until(t, "the size is the terminal's", func() bool {
			return strings.Contains(s.Cale("exec", "tty", "sh", "-c", "stty size < /proc/1/fd/0").Stdout, "24 80")
		})
		term.Resize(30, 100)
		stack.Until(t, "the size has changed", func() bool {
			return strings.Contains(s.Cale("exec", "tty", "sh", "-c", "stty size < /proc/1/fd/0").Stdout, "30 100")
		})
		term.Type("\x10\x11")
		if code := term.Exit(); code != 0 {
			t.Errorf("detaching ends with %d", code)
		}
		if out := strings.TrimSpace(s.Cale("inspect", "-f", "{{.State.Status}}", "tty").OK(t)); out != "running" {
			t.Fatalf("after detaching the container is %s", out)
		}

		again := s.Terminal(client, "attach", "tty")
		again.Type("echo back $((50+5))\n")
		again.Expect("back 55")

		in := s.Terminal(client, "exec", "-it", "tty", "sh")
		in.Type("echo in $((60+6)); tty\n")
		in.Expect("in 66")
		in.Type("exit 9\n")
		if code := in.Exit(); code != 9 {
			t.Errorf("exec ends with %d, not 9", code)
		}

		again.Type("exit 4\n")
		if code := again.Exit(); code != 4 {
			t.Errorf("attach ends with %d, not the shell's 4", code)
		}
	})
}

// TestInterrupt: ctrl-c on a terminal reaches the container's process, and a signal to a client without one is
// passed on.
func TestInterrupt(t *testing.T) {
	s := stack.New(t)
	term := s.Terminal("cale", "run", "--rm", "-it", s.Busybox(), "sh", "-c", "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.1; done")
	term.Expect("ready")
	term.Type("\x03")
	term.Expect("caught")
	if code := term.Exit(); code != 6 {
		t.Errorf("the interrupted container ends with %d", code)
	}
}

// TestStdinEnds is docker's issue 37870: `true | exec -i c cat` must always return.
func TestStdinEnds(t *testing.T) {
	s := stack.New(t)
	s.Cale("run", "-d", "--name", "cc", s.Busybox(), "sleep", "1000").OK(t)
	for i := 0; i < 20; i++ {
		s.Do("", "cale", "exec", "-i", "cc", "cat").OK(t)
		if out := s.Do("hi\n", "cale", "exec", "-i", "cc", "cat").OK(t); out != "hi\n" {
			t.Fatalf("exec %d printed %q", i, out)
		}
	}
}

// TestLongLines is docker's issues 32923 and 1321: a line of any length is one line of the log.
func TestLongLines(t *testing.T) {
	s := stack.New(t)
	for _, n := range []string{"30000", "200000"} {
		name := "long" + n
		s.Cale("run", "-d", "--name", name, s.Busybox(), "sh", "-c", "printf START; head -c "+n+" /dev/zero | tr '\\0' x; echo END").OK(t)
		s.Cale("wait", name).OK(t)
		out := s.Cale("logs", name).OK(t)
		if !strings.HasPrefix(out, "START") || !strings.HasSuffix(out, "END\n") || strings.Count(out, "\n") != 1 {
			t.Errorf("a line of %s bytes comes back with %d bytes and %d newlines", n, len(out), strings.Count(out, "\n"))
		}
		if out := s.Cale("logs", "-t", name).OK(t); strings.Count(out, "Z ") != 1 {
			t.Errorf("a line of %s bytes has %d times", n, strings.Count(out, "Z "))
		}
	}
}
