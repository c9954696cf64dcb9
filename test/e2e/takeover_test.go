package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cale/test/stack"
)

// count prints numbered lines, on TERM it ends with 7.
const count = "trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"

func run(t *testing.T, s *stack.Stack, args ...string) (id string) {
	t.Helper()
	return strings.TrimSpace(s.Cale(append([]string{"run", "-d"}, args...)...).OK(t))
}

func exitCode(t *testing.T, s *stack.Stack, name string) string {
	t.Helper()
	return strings.TrimSpace(s.Cale("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).OK(t))
}

// killed is how supervisors die here: alone, with the engine, and the latter without the one that starts on demand
// before a while has passed.
var killed = []struct {
	name string
	kill func(s *stack.Stack, ids ...string)
}{
	{"the supervisor", func(s *stack.Stack, ids ...string) {
		for _, id := range ids {
			stack.Kill(s.T(), s.Supervisor(id))
		}
	}},
	{"supervisor and engine", func(s *stack.Stack, ids ...string) {
		s.KillEngine()
		for _, id := range ids {
			stack.Kill(s.T(), s.Supervisor(id))
		}
	}},
	{"keeper, then the supervisor", func(s *stack.Stack, ids ...string) {
		old := s.Keeper()
		stack.Kill(s.T(), old)
		stack.Until(s.T(), "another keeper has come", func() bool { k := s.Keeper(); return k != 0 && k != old })
		time.Sleep(300 * time.Millisecond) // until it was given everything
		for _, id := range ids {
			stack.Kill(s.T(), s.Supervisor(id))
		}
	}},
}

// TestSupervisorDies: the death of a supervisor costs no container, nor its logs, input, terminal, sessions or exit code.
func TestSupervisorDies(t *testing.T) {
	for _, k := range killed {
		t.Run(k.name, func(t *testing.T) {
			s := stack.New(t)
			logs := run(t, s, "--name", "logs", s.Busybox(), "sh", "-c", count)
			input := run(t, s, "-i", "--name", "input", s.Busybox(), "sh", "-c", "read x; echo got $x; exit 3")
			term := run(t, s, "-it", "--name", "term", s.Busybox(), "sh")
			ends := run(t, s, "-i", "--name", "ends", s.Busybox(), "sh", "-c", "sleep 1.5; echo bye; exit 5")
			again := run(t, s, "--restart", "on-failure", "--name", "again", s.Busybox(), "sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.02; done")
			frozen := run(t, s, "--name", "frozen", s.Busybox(), "sh", "-c", count)
			s.Cale("pause", "frozen").OK(t)
			k.kill(s, logs, input, term, ends, again, frozen)

			// Nothing is missing of the log, and it goes on.
			stack.Until(t, "the log goes on", func() bool {
				out := s.Cale("logs", "--tail", "1", "logs").OK(t)
				var n int
				_, err := fmt.Sscanf(out, "line %d", &n)
				return err == nil && n > 60
			})
			for i, line := range strings.Split(strings.TrimSpace(s.Cale("logs", "logs").OK(t)), "\n") {
				if want := fmt.Sprint("line ", i+1); line != want {
					t.Fatalf("line %d of the log is %q", i+1, line)
				}
			}
			if out := s.Cale("exec", "logs", "echo", "hello").OK(t); out != "hello\n" {
				t.Errorf("exec: %q", out)
			}
			s.Cale("exec", "logs", "sh", "-c", "exit 9").Exit(t, 9)
			if out := s.Cale("top", "logs").OK(t); !strings.Contains(out, "sleep") {
				t.Errorf("top: %q", out)
			}
			s.Cale("stats", "--no-stream", "logs").OK(t)
			s.Cale("stop", "logs").OK(t)
			if got := exitCode(t, s, "logs"); got != "exited 7" {
				t.Errorf("after stop: %s", got)
			}

			// The input is still open.
			attached := s.Do("some words\n", "cale", "attach", "input").Exit(t, 3)
			if attached.Stdout != "got some words\n" {
				t.Errorf("attach: %q", attached.Stdout)
			}
			if got := exitCode(t, s, "input"); got != "exited 3" {
				t.Errorf("input: %s", got)
			}

			// The terminal has not hung up.
			a := s.Terminal("cale", "attach", "term")
			a.Type("echo sum $((40+2)); tty\n")
			a.Expect("sum 42")
			a.Expect("/dev/pts/0")
			a.Type("exit 6\n")
			if code := a.Exit(); code != 6 {
				t.Errorf("attach to the terminal ends with %d", code)
			}

			// One that ended by itself, perhaps while nobody was there, did so with its own code.
			stack.Until(t, "it has ended", func() bool { return exitCode(t, s, "ends") == "exited 5" })
			if out := s.Cale("logs", "ends").OK(t); out != "bye\n" {
				t.Errorf("its log: %q", out)
			}

			if got := exitCode(t, s, "frozen"); got != "paused 0" {
				t.Errorf("frozen: %s", got)
			}
			s.Cale("unpause", "frozen").OK(t)
			s.Cale("rm", "-f", "frozen").OK(t)

			// The restart policy still sees its end, and the one after it.
			for restarts := range 2 {
				s.Cale("exec", "again", "kill", "1").OK(t)
				stack.Until(t, "it was restarted", func() bool {
					return strings.TrimSpace(s.Cale("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again").OK(t)) == fmt.Sprint(restarts+1, " running")
				})
			}
			s.Cale("rm", "-f", "again").OK(t)
			s.Cale("rm", "logs", "input", "term", "ends").OK(t)
		})
	}
}

// TestSupervisorDiesUnnoticed: clients that are connected when a supervisor dies see nothing of it.
func TestSupervisorDiesUnnoticed(t *testing.T) {
	s := stack.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), stack.Patience)
	defer cancel()
	name := func(args ...string) (io.WriteCloser, *bufio.Reader, func() error) {
		cmd := s.Command(ctx, "cale", args...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return in, bufio.NewReader(out), cmd.Wait
	}
	say := func(in io.Writer, out *bufio.Reader, text string) {
		t.Helper()
		if _, err := io.WriteString(in, text+"\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := out.ReadString('\n'); err != nil || line != "got "+text+"\n" {
			t.Fatalf("answer to %q: %q, %v", text, line, err)
		}
	}
	const answer = "while read x; do echo got $x; done; exit "
	in, out, wait := name("run", "-i", "--name", "one", s.Busybox(), "sh", "-c", answer+"3")
	say(in, out, "first")
	ein, eout, ewait := name("exec", "-i", "one", "sh", "-c", answer+"4")
	say(ein, eout, "in exec")
	_, logs, _ := name("logs", "-f", "one")
	for range 3 { // deaths
		id := strings.TrimSpace(s.Cale("inspect", "-f", "{{.Id}}", "one").OK(t))
		stack.Kill(s.T(), s.Supervisor(id))
		say(in, out, "word")
		say(ein, eout, "more")
		say(in, out, "more words")
	}
	ein.Close()
	if err := ewait(); err == nil || err.Error() != "exit status 4" {
		t.Errorf("exec ends with %v", err)
	}
	in.Close()
	if err := wait(); err == nil || err.Error() != "exit status 3" {
		t.Errorf("run ends with %v", err)
	}
	all, err := io.ReadAll(logs)
	if want := "got first\n" + strings.Repeat("got word\ngot more words\n", 3); err != nil || string(all) != want {
		t.Errorf("logs -f: %q, %v", all, err)
	}
}

// TestSupervisorDiesOverProbe: a health check that was under way when the supervisor died ends with it; what an exec has
// left in the background goes on.
func TestSupervisorDiesOverProbe(t *testing.T) {
	s := stack.New(t)
	id := strings.TrimSpace(s.Cale("run", "-d", "--name", "box", "--health-cmd", "echo $$ >>/probes; sleep 1000; true", "--health-interval", "200ms",
		"--health-timeout", "1h", s.Busybox(), "sleep", "1000").OK(t))
	s.Cale("exec", "box", "sh", "-c", "sleep 999 >/dev/null 2>&1 & echo $! >/left").OK(t)
	stack.Until(t, "a probe is under way", func() bool { return s.Cale("exec", "box", "test", "-s", "/probes").Code == 0 })
	if err := unix.Kill(s.Supervisor(id), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	stack.Until(t, "the probe is gone", func() bool {
		r := s.Cale("exec", "box", "sh", "-c", "kill -0 $(head -n 1 /probes)")
		return r.Code == 1 && strings.Contains(r.Stderr, "No such process")
	})
	s.Cale("exec", "box", "sh", "-c", "kill -0 $(cat /left)").OK(t)
	stack.Until(t, "checks go on", func() bool {
		return strings.Count(s.Cale("exec", "box", "cat", "/probes").Stdout, "\n") > 1
	})
}

// TestSupervisorDiesOfSharedPids: where several containers are in one pid namespace, what lost its parent is a child of
// the namespace's first process, which is in another control group. It is no command that the supervisor ran.
func TestSupervisorDiesOfSharedPids(t *testing.T) {
	s := stack.New(t)
	run(t, s, "--name", "first", s.Busybox(), "sleep", "1000")
	id := run(t, s, "--name", "box", "--pid", "container:first", s.Busybox(), "sh", "-c", "(sleep 1001 & echo $! >/left); exec sleep 1000")
	alive := func() bool {
		return s.Cale("exec", "box", "sh", "-c", "grep -q State:.S /proc/$(cat /left)/status").Code == 0
	}
	stack.Until(t, "the process without a parent is there", alive)
	old := s.Supervisor(id)
	stack.Kill(t, old)
	stack.Until(t, "another supervisor has taken over", func() bool {
		return s.Cale("exec", "box", "true").Code == 0 && s.Supervisor(id) != old
	})
	if !alive() {
		t.Error("a process of the container's was ended")
	}
}
