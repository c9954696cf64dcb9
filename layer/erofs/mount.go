package erofs

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cale/runtime/linux"
)

// Mount mounts the image in a file; the kernel reads from the file itself, since
// Linux 6.12 and where the file's filesystem has a page cache of the usual kind
// (tmpfs has not). The mount is detached: it goes with the descriptor unless it
// is moved somewhere.
func Mount(path string) (*os.File, error) {
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount %s: fsopen: %w", path, err)
	}
	defer unix.Close(fs)
	if err = unix.FsconfigSetString(fs, "source", path); err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w%s", path, err, linux.FSMessage(fs))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("mount %s: fsmount: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Supported tells whether images in dir can be mounted by this process, by
// trying it.
func Supported(dir string) error {
	f, err := os.CreateTemp(dir, "tmp-erofs-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := Write(f, Start, &Node{Mode: unix.S_IFDIR | 0o755}); err != nil {
		return err
	}
	path, err := filepath.Abs(f.Name())
	if err != nil {
		return err
	}
	m, err := Mount(path)
	if err != nil {
		return err
	}
	return m.Close()
}
