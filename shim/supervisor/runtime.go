// Package supervisor is the inside of cale-shim: it owns the containers of one
// pod, reaps their processes, keeps their exit statuses and serves the task API.
package supervisor

import (
	"context"
	"os"
	"time"

	"cale/runtime/cgroup"
	"cale/shim/task"
)

// Runtime makes containers. It is our own runtime package, or a foreign OCI
// runtime's command line.
type Runtime interface {
	// Create makes a container whose init waits for Start. Init is a child of this
	// process. A failed Create leaves nothing behind.
	Create(ctx context.Context, o CreateOptions) (Box, error)
	// Restore makes a container of a checkpoint; it runs when Restore returns.
	Restore(ctx context.Context, o CreateOptions) (Box, error)
	// Load finds a container that another supervisor had made by o, whose streams it doesn't need; pid is its init's.
	Load(ctx context.Context, o CreateOptions, pid int) (Box, task.Status, error)
	// Cleanup removes what is left of a container whose shim is gone.
	Cleanup(ctx context.Context, bundle, stateDir, id string) error
}

// Streams are a process's ends of its streams, nil for /dev/null; or for a
// process with a terminal, who takes its master.
type Streams struct {
	Stdin, Stdout, Stderr *os.File
	Console               func(master *os.File)
	// Width and Height are the terminal's size in characters, 0 if not asked for.
	Width, Height uint16
}

// CreateOptions are what a Create request asks of a runtime.
type CreateOptions struct {
	ID, Bundle, StateDir string
	Rootfs               []task.Mount
	Streams              Streams
	Options              task.RuncOptions
	// Checkpoint is the directory of the images to Restore.
	Checkpoint string
}

// Box is one container of a Runtime.
type Box interface {
	Pid() int
	Start(ctx context.Context) error
	// Kill signals init, or every process.
	Kill(sig int, all bool) error
	// Exec starts a process given as OCI JSON; it is a child of this process.
	Exec(ctx context.Context, execID string, process []byte, s Streams) (pid int, err error)
	// Delete removes the container, killing what still runs.
	Delete() error
	Pause() error
	Resume() error
	Update(resources []byte) error
	Pids() ([]int, error)
	Stats() (*cgroup.Stats, error)
	// Checkpoint saves the container's processes.
	Checkpoint(ctx context.Context, o CheckpointOptions) error
	// SharesPids tells that the end of init does not end the other processes.
	SharesPids() bool
	// OOMKilled tells whether the kernel killed a process for want of memory.
	OOMKilled() bool
}

// Exit is how a process ended.
type Exit struct {
	Status uint32
	At     time.Time
	OOM    bool
	// Unknown tells that nobody who is left saw how it ended.
	Unknown bool
}
