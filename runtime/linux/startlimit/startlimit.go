// Package startlimit knows the open files limit the program was started with.
//
// Package syscall raises the soft limit when it is initialised and keeps the old value to itself. This package
// imports nothing, so that it is initialised before (packages without uninitialised imports are initialised in the
// order of their paths, and "cale" comes before "syscall"); it therefore makes its system call itself.
package startlimit

// Soft and Hard are RLIMIT_NOFILE at start; both are 0 where it couldn't be read.
var Soft, Hard uint64

// getrlimit is prlimit64(0, RLIMIT_NOFILE, NULL, lim).
func getrlimit(lim *[2]uint64) (errno uintptr)

func init() {
	var lim [2]uint64
	if getrlimit(&lim) == 0 {
		Soft, Hard = lim[0], lim[1]
	}
}
