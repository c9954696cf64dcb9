// Package shim is the client side of a shim: the process that supervises the
// containers of one pod. It speaks containerd's shim v2 protocol
// (containerd.task.v2.Task over ttrpc), so the shim at the other end may be
// cale-shim or anyone else's.
package shim

import (
	"context"
	"errors"
	"time"

	"cale/runtime/cgroup"
)

var errUnbuilt = errors.New("shim client: not built yet")

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
}

// ExecRequest adds a process to a container; it runs after Start with its ExecID.
type ExecRequest struct {
	ID, ExecID            string
	Terminal              bool
	Stdin, Stdout, Stderr string
	// Spec is an OCI process in JSON.
	Spec []byte
}

// Exit is how a process ended. Status is the exit code, or 128+signal.
type Exit struct {
	Status uint32
	At     time.Time
	Pid    uint32
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

// Start starts a shim in l.Bundle and connects to it. Our own shim is forked
// directly with its listening socket; any other is started as containerd does.
func Start(ctx context.Context, l Launch) (*Client, error) { return nil, errUnbuilt }

// Connect connects to the shim whose address is written in bundle/address.
// The error matches IsNotFound when no shim listens there.
func Connect(ctx context.Context, bundle string) (*Client, error) { return nil, errUnbuilt }

// ReadExit reads the exit status that the shim of bundle left on disk for the
// container id. The error matches fs.ErrNotExist when there is none.
func ReadExit(bundle, id string) (Exit, error) { return Exit{}, errUnbuilt }

// Client talks to one shim. It is safe for concurrent use.
type Client struct{}

// Create creates a container and returns its init's pid.
func (c *Client) Create(ctx context.Context, r CreateRequest) (uint32, error) { return 0, errUnbuilt }

// Start runs a created container, or an added exec when execID is not "".
func (c *Client) Start(ctx context.Context, id, execID string) (uint32, error) {
	return 0, errUnbuilt
}

// Exec adds a process to a running container.
func (c *Client) Exec(ctx context.Context, r ExecRequest) error { return errUnbuilt }

// Kill sends a signal to one process, or to all of the container.
func (c *Client) Kill(ctx context.Context, id, execID string, signal uint32, all bool) error {
	return errUnbuilt
}

// Wait blocks until the process has ended.
func (c *Client) Wait(ctx context.Context, id, execID string) (Exit, error) {
	return Exit{}, errUnbuilt
}

// Delete forgets an ended process and frees what it held.
func (c *Client) Delete(ctx context.Context, id, execID string) (Exit, error) {
	return Exit{}, errUnbuilt
}

// State reports the state of a process.
func (c *Client) State(ctx context.Context, id, execID string) (State, error) {
	return State{}, errUnbuilt
}

// Pids lists the processes of a container, by pids of the host.
func (c *Client) Pids(ctx context.Context, id string) ([]uint32, error) { return nil, errUnbuilt }

// Resize sets the size of a process's terminal in characters.
func (c *Client) Resize(ctx context.Context, id, execID string, width, height uint32) error {
	return errUnbuilt
}

// CloseIO closes the stdin of a process.
func (c *Client) CloseIO(ctx context.Context, id, execID string) error { return errUnbuilt }

// Pause freezes a container.
func (c *Client) Pause(ctx context.Context, id string) error { return errUnbuilt }

// Resume thaws a container.
func (c *Client) Resume(ctx context.Context, id string) error { return errUnbuilt }

// Update applies OCI LinuxResources given in JSON.
func (c *Client) Update(ctx context.Context, id string, resources []byte) error { return errUnbuilt }

// Stats reads a container's resource use.
func (c *Client) Stats(ctx context.Context, id string) (*cgroup.Stats, error) {
	return nil, errUnbuilt
}

// Pid returns the shim's own pid.
func (c *Client) Pid(ctx context.Context) (int, error) { return 0, errUnbuilt }

// Shutdown asks the shim to end when it holds no container any more.
func (c *Client) Shutdown(ctx context.Context) error { return errUnbuilt }

// Close drops the connection; the shim lives on.
func (c *Client) Close() error { return nil }

// IsNotFound reports that the container, exec or shim does not exist.
func IsNotFound(err error) bool { return false }

// IsExists reports that the id is taken.
func IsExists(err error) bool { return false }

// IsNotRunning reports that the operation needs a running process.
func IsNotRunning(err error) bool { return false }

// IsUnavailable reports that the shim went away during the call.
func IsUnavailable(err error) bool { return false }

// IsUnimplemented reports that this shim does not know the operation.
func IsUnimplemented(err error) bool { return false }

// IsCommandNotFound reports that the command to run does not exist (Docker's 127).
func IsCommandNotFound(err error) bool { return false }

// IsCommandNotExecutable reports that the command can not be executed (Docker's 126).
func IsCommandNotExecutable(err error) bool { return false }
