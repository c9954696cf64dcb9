package main

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"cale/ondemand"
	"cale/runtime/linux"
)

// mountsAreOwn is the variable by which this program knows that it was executed
// again.
const mountsAreOwn = "CALE_OWN_MOUNTS"

// hasOwnMounts says that ownMounts is done. No step may be run before.
var hasOwnMounts bool

// ownMounts gives this process a mount namespace of its own: what it mounts ends
// with it, however it ends. Mounts of the host still come in. The engine, if one
// is needed, is started before. One thread cannot leave the others behind, so
// this program is executed again.
func ownMounts(ctx context.Context, s settings) error {
	if os.Getenv(mountsAreOwn) != "" {
		if err := unix.Faccessat(unix.AT_FDCWD, "/proc/self/exe", unix.W_OK, unix.AT_EACCESS); err != unix.EROFS {
			return fmt.Errorf("%s is set, and this program was not executed from a mount of its own", mountsAreOwn)
		}
		hasOwnMounts = true
		return os.Unsetenv(mountsAreOwn)
	}
	if !s.alone {
		c, err := ondemand.Engine(s.root, s.run).Dial(ctx)
		if err != nil {
			return err
		}
		c.Close()
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("a mount namespace for the builder: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("a mount namespace for the builder: %w", err)
	}
	// Steps start as copies of this process among what an image has.
	if err := linux.CoverUnwritable(self); err != nil {
		return fmt.Errorf("make this program unwritable: %w", err)
	}
	return unix.Exec(self, os.Args, append(os.Environ(), mountsAreOwn+"=1"))
}
