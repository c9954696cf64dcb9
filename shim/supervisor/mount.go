package supervisor

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"cale/shim/task"
)

// mountFlags are the options of a mount that are flags, with what they clear.
var mountFlags = map[string]struct {
	clear bool
	flag  uintptr
}{
	"ro": {false, unix.MS_RDONLY}, "rw": {true, unix.MS_RDONLY},
	"bind": {false, unix.MS_BIND}, "rbind": {false, unix.MS_BIND | unix.MS_REC},
	"nosuid": {false, unix.MS_NOSUID}, "suid": {true, unix.MS_NOSUID},
	"nodev": {false, unix.MS_NODEV}, "dev": {true, unix.MS_NODEV},
	"noexec": {false, unix.MS_NOEXEC}, "exec": {true, unix.MS_NOEXEC},
	"noatime": {false, unix.MS_NOATIME}, "relatime": {false, unix.MS_RELATIME},
	"sync": {false, unix.MS_SYNCHRONOUS}, "defaults": {},
}

// mountAll mounts a container's root for a foreign runtime, each over the one
// before. Our own runtime needs no mount on the host.
func mountAll(mounts []task.Mount, target string) error {
	if err := os.MkdirAll(target, 0o711); err != nil {
		return err
	}
	for _, m := range mounts {
		var flags uintptr
		var data []string
		for _, o := range m.Options {
			f, ok := mountFlags[o]
			switch {
			case !ok:
				data = append(data, o)
			case f.clear:
				flags &^= f.flag
			default:
				flags |= f.flag
			}
		}
		err := unix.Mount(m.Source, target, m.Type, flags, strings.Join(data, ","))
		if err == nil && flags&unix.MS_BIND != 0 && flags&unix.MS_RDONLY != 0 {
			// A bind takes its flags only by a remount.
			err = unix.Mount("", target, "", flags|unix.MS_REMOUNT, "")
		}
		if err != nil {
			unmountAll(target)
			return &os.PathError{Op: "mount " + m.Type, Path: target, Err: err}
		}
	}
	return nil
}

// unmountAll takes all mounts off target.
func unmountAll(target string) error {
	for range 64 {
		err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "unmount", Path: target, Err: err}
		}
	}
	return nil
}
