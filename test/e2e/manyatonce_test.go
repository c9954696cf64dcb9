package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"cale/test/stack"
)

// TestManyAtOnce: who has several containers stopped, restarted, killed or removed waits for the slowest of them, not for
// one after the other, and is told in the order of the words.
func TestManyAtOnce(t *testing.T) {
	s := stack.New(t)
	names := []string{"one", "two", "three", "four", "five"}
	for _, n := range names {
		s.Cale("run", "-d", "--name", n, s.Busybox(), "sh", "-c", "trap '' TERM; while :; do sleep 1; done").OK(t)
	}
	told := func(args ...string) {
		t.Helper()
		if out := strings.Fields(s.Cale(append(args, names...)...).OK(t)); !slices.Equal(out, names) {
			t.Errorf("%v says %v", args, out)
		}
	}
	began := time.Now()
	told("restart", "-t", "2")
	told("stop", "-t", "2")
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("that took %v: two seconds each time, if all are done at once", took)
	}
	r := s.Cale("rm", "-f", "one", "nobody", "five").Exit(t, 0)
	if r.Stdout != "one\nfive\n" || !strings.Contains(r.Stderr, "No such container: nobody") {
		t.Errorf("rm says %q, and %q", r.Stdout, r.Stderr)
	}
	if r := s.Cale("rm", "nobody", "two").Exit(t, 1); r.Stdout != "two\n" {
		t.Errorf("rm without force says %q, and %q", r.Stdout, r.Stderr)
	}
}
