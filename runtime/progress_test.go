package runtime

import (
	"context"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The stages of a container's start are told in order under runc's names, and cost no step when nobody listens.
func TestProgress(t *testing.T) {
	w := newWorld(t)
	var lines []string
	tell := func(s string) { lines = append(lines, s) }
	w.must("true", func(o *Options) { o.Debug = tell })
	inOrder(t, lines, "nsexec container setup", "affinity: 0x", "child process in init()", "init: closing the pipe to signal completion")

	c := w.start()
	ps := w.process("grep Cpus_allowed_list: /proc/self/status")
	ps.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0"}
	lines = nil
	p, err := c.Exec(context.Background(), ExecOptions{Process: ps, Debug: tell})
	if err != nil {
		t.Fatal(err)
	}
	defer p.PidFD.Close()
	reap(t, p.Pid)
	inOrder(t, lines, "nsexec container setup", "affinity: 0x1", "child process in init()", "setns_init: about to exec")
}

// inOrder checks that parts appear in lines, each after the one before.
func inOrder(t *testing.T, lines []string, parts ...string) {
	t.Helper()
	rest := lines
	for _, part := range parts {
		i := slices.IndexFunc(rest, func(l string) bool { return strings.Contains(l, part) })
		if i < 0 {
			t.Errorf("%q is missing or too early in %q", part, lines)
			return
		}
		rest = rest[i+1:]
	}
}

func TestHexMask(t *testing.T) {
	for want, cpus := range map[string][]int{"0": nil, "1": {0}, "3": {0, 1}, "8001": {0, 15}, "10000000000000000": {64}} {
		var set unix.CPUSet
		for _, n := range cpus {
			set.Set(n)
		}
		if got := hexMask(&set); got != want {
			t.Errorf("%v: %s, want %s", cpus, got, want)
		}
	}
}
