package filetree

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Futimens sets access and modification time of an open file. The x/sys
// library only has forms that resolve a path again.
func Futimens(fd int, times [2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
