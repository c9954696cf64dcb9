package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/docker/go-units"

	"cale/runtime/linux"
)

// A container or volume with a bound on its disk (--storage-opt size=, volume create --opt size=) has a file system of
// its own: a sparse file beside its record, mounted for as long as it is there. It works on every file system of the
// host's, where project quotas are few's.
const (
	diskImage = "disk.img" // below the container's directory
	diskMount = "disk"
	leastDisk = 16 << 20 // what ext4 with a journal needs
	mostDisk  = 16 << 40
)

// diskSize reads the bound in bytes, 0 for none.
func diskSize(options map[string]string) (int64, error) {
	for key, value := range options {
		if !strings.EqualFold(key, "size") {
			return 0, invalid("unknown storage option %s: it can be size", key)
		}
		return parseDisk(value)
	}
	return 0, nil
}

func parseDisk(value string) (int64, error) {
	size, err := units.RAMInBytes(value)
	if err != nil {
		return 0, invalid("invalid storage option size=%s: %v", value, err)
	}
	if size < leastDisk || size > mostDisk {
		return 0, invalid("invalid storage option size=%s: it must be from 16m to 16t", value)
	}
	return size, nil
}

// writable is the directory that has what the container writes, and overlayfs's for its work.
func (c *container) writable() string {
	if c.rec.Disk > 0 { // never changed
		return filepath.Join(c.dir, diskMount)
	}
	return c.dir
}

// makeDisk makes the container's own file system, and mounts it.
func (c *container) makeDisk(ctx context.Context) error {
	if c.rec.Disk == 0 {
		return nil
	}
	if err := makeImage(ctx, filepath.Join(c.dir, diskImage), c.rec.Disk); err != nil {
		return err
	}
	return c.mountDisk()
}

// mountDisk mounts the container's own file system, if it has one that is not mounted.
func (c *container) mountDisk() error {
	if c.rec.Disk == 0 {
		return nil
	}
	return mountImage(filepath.Join(c.dir, diskImage), c.writable())
}

// dropDisk unmounts it.
func (c *container) dropDisk() error {
	if c.rec.Disk == 0 {
		return nil
	}
	return unmount(c.writable())
}

// makeImage makes a file that holds an empty file system of a size in bytes.
func makeImage(ctx context.Context, image string, size int64) error {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		return fail(ErrUnsupported, "a bound on the disk: mkfs.ext4 (e2fsprogs) makes the file system for it, and is not there")
	}
	f, err := os.OpenFile(image, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(f.Truncate(size), f.Close())
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, mkfs, "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", image)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4 %s: %w: %s", image, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// mountImage mounts such a file at a directory, which is made, if it isn't mounted.
func mountImage(image, at string) error {
	mounting.Lock()
	defer mounting.Unlock()
	if isMount(at) {
		return nil
	}
	if err := os.Mkdir(at, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := linux.MountImage(f, "ext4", at); err != nil {
		return err
	}
	os.Remove(filepath.Join(at, "lost+found")) // a checker makes it again; until then it is in everyone's way
	return nil
}

var mounting sync.Mutex // so that nothing is mounted twice
