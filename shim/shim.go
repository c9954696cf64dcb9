// Package shim is the client side of a shim: the process that supervises the
// containers of one pod. It speaks containerd's shim v2 protocol
// (containerd.task.v2.Task over ttrpc), so the shim at the other end may be
// cale-shim or anyone else's.
package shim

import (
	"time"
)

// Launch says how to start a shim.
type Launch struct {
	// Binary is the path of the shim program.
	Binary string
	// Namespace and ID name the shim as containerd does: -namespace and -id.
	Namespace, ID string
	// Bundle is the directory the shim runs in. It holds the address file, the
	// exit status (exit.json) and, for a single container, config.json.
	Bundle string
	// StateDir is where the OCI runtime keeps its state; "" for Bundle/state.
	StateDir string
	// Env is added to the shim's environment ("K=V").
	Env []string
	// Keeper is the socket of a keeper (see WatchKeeper), which lets what the shim has outlive it; "" for none. Only our
	// own shim has use for it.
	Keeper string
	// Adopt has the shim go on with what the keeper has of one by the same ID that died.
	Adopt bool
}

// Mount is one mount of a container's root file system.
type Mount struct {
	Type, Source, Target string
	Options              []string
}

// CreateRequest makes a container; its process waits for Start.
type CreateRequest struct {
	ID, Bundle string
	Rootfs     []Mount
	Terminal   bool
	// Stdin, Stdout and Stderr are stdio URIs: see package shim/stdio.
	Stdin, Stdout, Stderr string
	// Runtime is the path of a foreign OCI runtime, or "" for our own.
	Runtime string
	// Checkpoint is a directory that Checkpoint has written: the container is made of it, by Start. "" for a new one.
	Checkpoint string
}

// CheckpointRequest saves a container's processes.
type CheckpointRequest struct {
	// Path is the directory to make and to write to; WorkPath takes CRIU's log, "" for a place in the bundle.
	Path, WorkPath string
	// Exit ends the container.
	Exit bool
}

// ExecRequest adds a process to a container; it runs after Start with its ExecID.
type ExecRequest struct {
	ID, ExecID            string
	Terminal              bool
	Stdin, Stdout, Stderr string
	// Spec is an OCI process in JSON.
	Spec []byte
}

// RunRequest runs a process in a container from start to end.
type RunRequest struct {
	// ID is the container's, RunID the caller's name for the process.
	ID, RunID string
	// Stdout and Stderr are paths of files that take the process's output, "" for /dev/null.
	Stdout, Stderr string
	// Spec is an OCI process in JSON.
	Spec []byte
	// Timeout is how long the process may take; 0 is for ever.
	Timeout time.Duration
}

// Exit is how a process ended. Status is the exit code, or 128+signal.
type Exit struct {
	Status uint32
	At     time.Time
	// Pid is 0 where the source does not tell it (Wait).
	Pid uint32
	// OOMKilled is set by ReadExit only: a process of the container was killed
	// for want of memory.
	OOMKilled bool
	// Unknown is set by ReadExit only: nobody saw how it ended, and Status is 255.
	Unknown bool
}

// Statuses of a process as State reports them.
const (
	StatusCreated = "created"
	StatusRunning = "running"
	StatusStopped = "stopped"
	StatusPaused  = "paused"
	StatusPausing = "pausing"
	StatusUnknown = "unknown"
)

// State describes a container's init process or an exec.
type State struct {
	ID, ExecID, Bundle string
	Pid                uint32
	Status             string
	Terminal           bool
	// ExitStatus and ExitedAt are set once Status is stopped.
	ExitStatus uint32
	ExitedAt   time.Time
}
