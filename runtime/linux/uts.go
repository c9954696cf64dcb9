package linux

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// InUTS calls do in a UTS namespace. Only its thread is there, and comes back.
func InUTS(ns *os.File, do func() error) error {
	runtime.LockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own uts namespace: %w", err)
	}
	defer unix.Close(own)
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWUTS); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("join uts namespace: %w", err)
	}
	defer func() {
		// A thread that can't come back stays locked, and so ends with its goroutine.
		if unix.Setns(own, unix.CLONE_NEWUTS) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return do()
}
