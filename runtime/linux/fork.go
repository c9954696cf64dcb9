// Package linux holds the system calls and kernel facts that golang.org/x/sys lacks.
package linux

import _ "unsafe" // for go:linkname

// BeforeFork, AfterFork and AfterForkInChild are the Go runtime's own preparation for a fork: they block signals,
// stop preemption, and put signal handlers back in the child. What runs between them must not allocate, lock, or
// grow the stack.
//
//go:linkname BeforeFork syscall.runtime_BeforeFork
func BeforeFork()

// AfterFork is called in the parent.
//
//go:linkname AfterFork syscall.runtime_AfterFork
func AfterFork()

// AfterForkInChild is called in the child.
//
//go:linkname AfterForkInChild syscall.runtime_AfterForkInChild
func AfterForkInChild()
