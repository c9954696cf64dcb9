package e2e

import (
	"strings"
	"testing"

	"cale/test/stack"
)

// TestOutOfMemory: that memory ran out is told at once, also where it is another process than the first that the kernel
// kills and the container goes on; and no second time when it ends.
func TestOutOfMemory(t *testing.T) {
	s := stack.New(t)
	const eater = "(x=a; while true; do x=$x$x$x$x; done); echo gone on; exec sleep 1000"
	s.Cale("run", "-d", "--name", "goes-on", "--memory", "16m", "--memory-swap", "16m", s.Busybox(), "sh", "-c", eater).OK(t)
	told := func() int {
		return strings.Count(s.Cale("events", "--since", "1h", "--until", "0s", "--filter", "event=oom", "--format", "{{.Actor.Attributes.name}}").OK(t), "goes-on")
	}
	stack.Until(t, "memory has run out", func() bool { return strings.Contains(s.Cale("logs", "goes-on").OK(t), "gone on") })
	stack.Until(t, "that is told", func() bool { return told() > 0 })
	if state := strings.TrimSpace(s.Cale("inspect", "-f", "{{.State.Status}}", "goes-on").OK(t)); state != "running" {
		t.Errorf("then it is %s", state)
	}
	times := told()
	s.Cale("stop", "-t", "0", "goes-on").OK(t)
	if n := told(); n != times {
		t.Errorf("told %d times while it ran, %d when it had ended", times, n)
	}

	// A limit that comes later counts too.
	s.Cale("run", "-d", "--name", "limited-later", s.Busybox(), "sh", "-c", "until [ -e /go ]; do sleep 0.05; done; "+eater).OK(t)
	s.Cale("update", "--memory", "16m", "--memory-swap", "16m", "limited-later").OK(t)
	s.Cale("exec", "limited-later", "touch", "/go").OK(t)
	stack.Until(t, "that is told of the second", func() bool {
		return strings.Contains(s.Cale("events", "--since", "1h", "--until", "0s", "--filter", "event=oom", "--format", "{{.Actor.Attributes.name}}").OK(t), "limited-later")
	})
}
