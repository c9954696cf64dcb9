package linux

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// InMounts calls do in a thread that has another process's mount namespace, whose root is then the thread's root and
// working directory. Paths, /proc's too, mean what they mean there: do is for descriptors.
func InMounts(ns *os.File, do func() error) (err error) {
	InThread(func() {
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			err = fmt.Errorf("unshare file system attributes: %w", err)
			return
		}
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			err = fmt.Errorf("join mount namespace: %w", err)
			return
		}
		err = do()
	})
	return err
}
