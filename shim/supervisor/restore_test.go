package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cale/shim/task"
	"cale/shim/ttrpc"
)

// A restore may take long, or hang: it can be looked at and killed, whether the signal ends it or comes too late for
// that.
func TestKillWhileRestoring(t *testing.T) {
	for _, checkpoint := range []string{"/slow", "/late"} {
		t.Run(checkpoint[1:], func(t *testing.T) {
			h := newHarness(t, false)
			dir := h.bundle("exec sleep 1000")
			ref := &task.ProcessRequest{ID: "c"}
			h.must(h.call("Create", &task.CreateRequest{ID: "c", Bundle: dir, Checkpoint: checkpoint}, nil))
			started := make(chan error, 1)
			go func() { started <- h.call("Start", ref, nil) }()
			for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
				if _, err := os.Stat(filepath.Join(dir, "begun")); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the restore does not begin")
				}
			}
			var st task.StateResponse
			h.must(h.call("State", ref, &st))
			if st.Status != task.StatusCreated {
				t.Errorf("state %d", st.Status)
			}
			if err := h.call("Start", ref, nil); code(err) != ttrpc.FailedPrecondition {
				t.Errorf("second start: %v", err)
			}
			h.must(h.call("Kill", &task.KillRequest{ID: "c", Signal: 9}, nil))
			if status := h.wait("c", ""); status != 137 {
				t.Errorf("status %d", status)
			}
			if err := <-started; checkpoint == "/slow" && code(err) != ttrpc.FailedPrecondition || checkpoint == "/late" && err != nil {
				t.Errorf("start: %v", err)
			}
			h.must(h.call("Delete", ref, nil))
		})
	}
}

// Signals that would not end a process don't end a container that waits for its restore either.
func TestHarmlessSignalsBeforeRestore(t *testing.T) {
	h := newHarness(t, false)
	ref := &task.ProcessRequest{ID: "c"}
	h.must(h.call("Create", &task.CreateRequest{ID: "c", Bundle: h.bundle("exit 5"), Checkpoint: "/checkpoint"}, nil))
	for _, sig := range []syscall.Signal{0, syscall.SIGWINCH, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGCONT} {
		h.must(h.call("Kill", &task.KillRequest{ID: "c", Signal: uint32(sig)}, nil))
	}
	h.must(h.call("Start", ref, nil))
	if status := h.wait("c", ""); status != 5 {
		t.Errorf("status %d", status)
	}
	h.must(h.call("Delete", ref, nil))
}

// Another runtime restores with what a checkpoint may have been made with.
func TestForeignRestoreAllowsWhatWasSaved(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "runtime")
	script := "#!/bin/sh\necho \"$@\" >" + dir + "/args\nwhile [ \"$1\" != --pid-file ]; do shift; done\necho 4711 >\"$2\"\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	f := &Foreign{Options: task.RuncOptions{BinaryName: program}}
	if _, err := f.Restore(t.Context(), CreateOptions{ID: "c", Bundle: dir, Checkpoint: "/images"}); err != nil {
		t.Fatal(err)
	}
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--tcp-established", "--ext-unix-sk", "--file-locks"} {
		if !strings.Contains(string(args), " "+flag) {
			t.Errorf("no %s in %s", flag, args)
		}
	}
}
