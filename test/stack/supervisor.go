package stack

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// shimAt finds the process of cale-shim that was started with an action in a directory, 0 when there is none.
func shimAt(t testing.TB, dir, action string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !bytes.HasPrefix(raw, []byte("cale-shim\x00")) || !bytes.HasSuffix(raw, []byte("\x00"+action+"\x00")) {
			continue
		}
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && cwd == dir && alive(pid) {
			return pid
		}
	}
	return 0
}

// Supervisor is the shim of the container or pod with this id of an engine by its Run directory, 0 when none runs.
func Supervisor(t testing.TB, run, id string) int {
	t.Helper()
	return shimAt(t, filepath.Join(run, "pods", id), "serve")
}

// Supervisor is the shim of the container or pod with this id, 0 when none runs.
func (s *Stack) Supervisor(id string) int { return Supervisor(s.t, s.Run, id) }

// Keeper is the process that lets the containers of an engine by its Run directory outlive their supervisors, 0 when
// none runs.
func Keeper(t testing.TB, run string) int {
	t.Helper()
	return shimAt(t, run, "keep")
}

// Keeper is the process that lets containers outlive their supervisors, 0 when none runs.
func (s *Stack) Keeper() int { return Keeper(s.t, s.Run) }

// Kill ends a process as a crash would, and waits until it is gone.
func Kill(t testing.TB, pid int) {
	t.Helper()
	if pid == 0 {
		t.Fatal("there is no such process")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// A process whose first thread has ended holds its files until the last one has.
	Until(t, fmt.Sprintf("process %d has ended", pid), func() bool {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		return !alive(pid) && len(tasks) <= 1
	})
}
