package engine

import (
	"testing"

	"golang.org/x/sys/unix"

	"cale/test/stack"
)

// A container that is frozen for the engine's own work goes on when the engine dies over it; one that a client has paused
// stays paused.
func TestFrozenByDeadEngine(t *testing.T) {
	b := newBench(t)
	frozen, paused := b.start(sh("sleep 1000")), b.start(sh("sleep 1000"))
	c, err := b.find(frozen)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.standStill(ctx, c, frozen); err != nil {
		t.Fatal(err)
	}
	if err := b.Pause(ctx, paused); err != nil {
		t.Fatal(err)
	}
	if i := b.inspect(frozen); i.State.Status != Paused {
		t.Fatalf("standing still it is %s", i.State.Status)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	if i := b.inspect(frozen); i.State.Status != Running {
		t.Errorf("after the engine's death it is %s", i.State.Status)
	}
	b.exec(frozen, ExecSpec{Cmd: []string{"true"}})
	if i := b.inspect(paused); i.State.Status != Paused {
		t.Errorf("a client's pause ended with the engine: %s", i.State.Status)
	}
}

// A container whose process dies together with engine and supervisor is not running to the next engine, not even at first.
func TestAllKilledAtOnce(t *testing.T) {
	b := newBench(t)
	id := b.start(sh("sleep 1000"))
	pid, supervisor := b.inspect(id).State.Pid, stack.Supervisor(t, b.conf.Run, id)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []int{supervisor, pid} {
		if err := unix.Kill(p, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	b.open()
	if i := b.inspect(id); i.State.Status != Exited {
		t.Errorf("it is %s", i.State.Status)
	}
}
