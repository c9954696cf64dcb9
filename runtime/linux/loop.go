package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MountImage mounts a file that holds a file system of a kind at a directory, through a loop device that goes with the
// mount (loop(4)). Nothing on it is a device.
func MountImage(image *os.File, kind, dir string) error {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loop devices: %w", err)
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("find a free loop device: %w", err)
		}
		path := fmt.Sprintf("/dev/loop%d", n)
		device, err := openLoop(path, n)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		config := unix.LoopConfig{Fd: uint32(image.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if errors.Is(err, unix.EBUSY) { // somebody else was quicker
			device.Close()
			continue
		}
		if err == nil {
			err = unix.Mount(path, dir, kind, unix.MS_NODEV, "")
		}
		device.Close() // the mount holds it
		if err != nil {
			return fmt.Errorf("mount %s at %s: %w", image.Name(), dir, err)
		}
		return nil
	}
}

// openLoop opens a loop device, and makes its node where nobody else does.
func openLoop(path string, n int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	const loopMajor = 7
	if err := unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
}
