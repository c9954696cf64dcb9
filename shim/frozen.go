package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LockFile is in the bundle of each of our shims, which holds a lock on it for as long as it lives, so that there is never a
// second one.
const LockFile = "supervisor.lock"

// Supervising is the pid of the shim that has a bundle, 0 if none has.
func Supervising(bundle string) int {
	f, err := os.Open(filepath.Join(bundle, LockFile))
	if err != nil {
		return 0
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if unix.FcntlFlock(f.Fd(), unix.F_GETLK, &l) != nil || l.Type == unix.F_UNLCK {
		return 0
	}
	return int(l.Pid)
}

// StoppedError is a shim that answers nobody, as somebody has stopped its process.
type StoppedError struct{ Pid int }

func (e *StoppedError) Error() string {
	return fmt.Sprintf("its supervisor does not answer, as its process %d is stopped (SIGSTOP): `kill -CONT %d` lets it go on", e.Pid, e.Pid)
}

// stoppedLook is how often it is asked whether a shim that hasn't answered is stopped.
const stoppedLook = time.Second

// Unstopped calls the shim that has a bundle, and gives up with a StoppedError if that is stopped for seconds.
func Unstopped(ctx context.Context, bundle string, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	looks := 0
	var look func()
	look = func() {
		pid := Supervising(bundle)
		if !stopped(pid) {
			looks = 0
		} else if looks++; looks == 3 {
			cancel(&StoppedError{pid})
		}
		if ctx.Err() == nil {
			time.AfterFunc(stoppedLook, look)
		}
	}
	timer := time.AfterFunc(stoppedLook, look)
	defer timer.Stop()
	err := call(ctx)
	if why, ok := context.Cause(ctx).(*StoppedError); ok && err != nil {
		return why
	}
	return err
}

// stopped reports whether a process has been stopped by a signal.
func stopped(pid int) bool {
	if pid <= 0 {
		return false
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	text := string(raw)
	rest := text[strings.LastIndexByte(text, ')')+1:] // the name may hold anything
	return strings.HasPrefix(rest, " T")
}
