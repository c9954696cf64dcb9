package runtime

import (
	"context"
	"testing"

	"cale/runtime/spec"

	"golang.org/x/sys/unix"
)

// BenchmarkRun is a container from its configuration to its removal, without the start of a runtime program.
func BenchmarkRun(b *testing.B) {
	w := newWorld(b)
	w.spec.Process.Args = []string{"/bin/true"}
	for b.Loop() {
		o := w.options("bench", nil)
		c, err := Run(context.Background(), o)
		if err != nil {
			b.Fatal(err)
		}
		var ws unix.WaitStatus
		unix.Wait4(c.InitPid(), &ws, 0, nil)
		if err := c.Delete(true); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExec is a process in a container.
func BenchmarkExec(b *testing.B) {
	w := newWorld(b)
	c := w.start()
	p := w.process("")
	p.Args = []string{"/bin/true"}
	for b.Loop() {
		proc, err := c.Exec(context.Background(), ExecOptions{Process: p})
		if err != nil {
			b.Fatal(err)
		}
		var ws unix.WaitStatus
		unix.Wait4(proc.Pid, &ws, 0, nil)
		proc.PidFD.Close()
	}
}

// BenchmarkDefault is the part before anything is asked of the kernel.
func BenchmarkDefault(b *testing.B) {
	for b.Loop() {
		if err := spec.Validate(spec.Default()); err != nil {
			b.Fatal(err)
		}
	}
}
