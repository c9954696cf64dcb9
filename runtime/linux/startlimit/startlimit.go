// Package startlimit knows the open files limit the program was started with.
//
// Package syscall raises the soft limit when it is initialised and keeps the old value to itself. This package is
// initialised before it (see rawcall).
package startlimit

import (
	"unsafe"

	"cale/runtime/linux/rawcall"
)

// Soft and Hard are RLIMIT_NOFILE at start; both are 0 where it couldn't be read.
var Soft, Hard uint64

// nofile is RLIMIT_NOFILE.
const nofile = 7

func init() {
	var limit [2]uint64
	if rawcall.Syscall(rawcall.Prlimit64, 0, nofile, 0, uintptr(unsafe.Pointer(&limit)), 0, 0) == 0 {
		Soft, Hard = limit[0], limit[1]
	}
}
