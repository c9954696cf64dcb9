package network

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

const threadNS = "/proc/thread-self/ns/net"

// NewNamespace makes a network namespace with its loopback up and pins it at
// path, which must not exist. The calling thread is back in its own namespace
// when it returns.
func NewNamespace(path string) (err error) {
	pin, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("pin network namespace: %w", err)
	}
	pin.Close()
	defer func() {
		if err != nil {
			RemoveNamespace(path)
		}
	}()

	runtime.LockOSThread()
	home, err := unix.Open(threadNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(home)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("make network namespace: %w", err)
	}
	result := pinCurrent(path)
	if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
		// The thread stays locked, so the runtime ends it with this goroutine.
		return errors.Join(result, fmt.Errorf("return to own network namespace: %w", err))
	}
	runtime.UnlockOSThread()
	return result
}

func pinCurrent(path string) error {
	if err := unix.Mount(threadNS, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin network namespace at %s: %w", path, err)
	}
	return LoopbackUp()
}

// LoopbackUp brings up the loopback of the calling thread's network namespace.
func LoopbackUp() error {
	c, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	const loopback = 1 // in every namespace
	if err := c.Do(rtnl.SetUp(loopback)); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}

// RemoveNamespace takes away the pin; the namespace ends with its last
// process. A missing path is no error.
func RemoveNamespace(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unpin network namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin network namespace: %w", err)
	}
	return nil
}

// openNamespace opens a pinned namespace and makes sure that it is one: a pin
// whose mount is gone is a plain file, and setns would only say EINVAL.
func openNamespace(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.NSFS_MAGIC {
		unix.Close(fd)
		return -1, fmt.Errorf("%s is no network namespace: its mount is gone", path)
	}
	return fd, nil
}
