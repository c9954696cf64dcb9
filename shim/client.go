package shim

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cale/runtime/cgroup"
	"cale/shim/task"
	"cale/shim/ttrpc"
)

// Client talks to one shim, or to one after the other: see Revive. It is safe for concurrent use.
type Client struct {
	service string

	mu     sync.Mutex
	rpc    *ttrpc.Client
	closed bool

	reviving sync.Mutex // held while another shim takes over
	revive   func(ctx context.Context) (*Client, error)
	revivals []time.Time
}

func newClient(conn net.Conn, service string) *Client {
	return &Client{rpc: ttrpc.NewClient(conn), service: service}
}

// Revive sets how a connection is had to whoever goes on when the shim has died: its containers are to be there. Calls
// that find the shim gone then go to that one, and so do those it was gone over that can be made twice.
func (c *Client) Revive(again func(ctx context.Context) (*Client, error)) {
	c.reviving.Lock()
	defer c.reviving.Unlock()
	c.revive = again
}

const (
	// A shim that dies more than mostRevivals times in revivalSpan would do so for ever.
	mostRevivals = 5
	revivalSpan  = 10 * time.Second
	// reviveTimeout bounds the start of the shim that takes over.
	reviveTimeout = 30 * time.Second
)

func (c *Client) current() *ttrpc.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rpc
}

// successor gives the connection that came after one that has ended, or nil when there is none.
func (c *Client) successor(ctx context.Context, dead *ttrpc.Client) *ttrpc.Client {
	c.reviving.Lock()
	defer c.reviving.Unlock()
	if now := c.current(); now != dead {
		return now
	}
	now := time.Now()
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if c.revive == nil || closed {
		return nil
	}
	c.revivals = slices.DeleteFunc(c.revivals, func(t time.Time) bool { return now.Sub(t) > revivalSpan })
	if len(c.revivals) >= mostRevivals {
		c.revive = nil
		return nil
	}
	c.revivals = append(c.revivals, now)
	// It is not the caller's alone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviveTimeout)
	defer cancel()
	next, err := c.revive(ctx)
	if err != nil {
		c.revive = nil
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		next.Close()
		return nil
	}
	dead.Close()
	c.rpc, c.service = next.rpc, next.service
	return c.rpc
}

// repeatable are the methods that may be called again when it isn't known whether they were carried out.
var repeatable = map[string]bool{
	"State": true, "Wait": true, "Pids": true, "Stats": true, "ResizePty": true, "CloseIO": true,
	"Delete": true, "Update": true, "ReopenLog": true,
}

// callRaw makes a call, and if the shim is gone another of its successor.
func (c *Client) callRaw(ctx context.Context, service, method string, payload []byte) ([]byte, error) {
	rpc := c.current()
	for {
		lost := false
		select {
		case <-rpc.Done():
			lost = true
		default:
		}
		var b []byte
		var err error = errLost
		if !lost {
			if b, err = rpc.Call(ctx, service, method, payload); !IsUnavailable(err) || ctx.Err() != nil {
				return b, err
			}
		}
		// Of these none needs the containers.
		if method == "Shutdown" || method == "Connect" || method == "Keep" {
			return nil, err
		}
		next := c.successor(ctx, rpc)
		if next == nil || !lost && !repeatable[method] {
			return nil, err
		}
		rpc = next
	}
}

// errLost is what calls get that find no shim any more.
var errLost = &ttrpc.Status{Code: ttrpc.Unavailable, Message: "the connection to the shim is closed"}

// appender and unmarshaler are what task's requests and answers are.
type appender interface{ Append([]byte) []byte }
type unmarshaler interface{ Unmarshal([]byte) error }

func (c *Client) call(ctx context.Context, method string, req appender, resp unmarshaler) error {
	c.mu.Lock()
	service := c.service
	c.mu.Unlock()
	b, err := c.callRaw(ctx, service, method, req.Append(nil))
	if err != nil || resp == nil {
		return err
	}
	return resp.Unmarshal(b)
}

// Create creates a container and returns its init's pid.
func (c *Client) Create(ctx context.Context, r CreateRequest) (uint32, error) {
	req := &task.CreateRequest{
		ID: r.ID, Bundle: r.Bundle, Terminal: r.Terminal,
		Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Checkpoint: r.Checkpoint,
	}
	for _, m := range r.Rootfs {
		req.Rootfs = append(req.Rootfs, task.Mount(m))
	}
	if r.Runtime != "" {
		o := task.RuncOptions{BinaryName: r.Runtime}
		req.Options = task.Any{URL: task.TypeOptions, Value: o.Append(nil)}
	}
	var resp task.PidResponse
	err := c.call(ctx, "Create", req, &resp)
	return resp.Pid, err
}

// Start runs a created container, or an added exec when execID is not "".
func (c *Client) Start(ctx context.Context, id, execID string) (uint32, error) {
	var resp task.PidResponse
	err := c.call(ctx, "Start", &task.ProcessRequest{ID: id, ExecID: execID}, &resp)
	return resp.Pid, err
}

// Exec adds a process to a running container.
func (c *Client) Exec(ctx context.Context, r ExecRequest) error {
	return c.call(ctx, "Exec", &task.ExecRequest{
		ID: r.ID, ExecID: r.ExecID, Terminal: r.Terminal,
		Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr,
		Spec: task.Any{URL: task.TypeProcess, Value: r.Spec},
	}, nil)
}

// Kill sends a signal to one process, or to all of the container.
func (c *Client) Kill(ctx context.Context, id, execID string, signal uint32, all bool) error {
	for {
		// A signal comes once: a program that gets SIGTERM twice may do something else. Being killed twice is nothing.
		rpc := c.current()
		err := c.call(ctx, "Kill", &task.KillRequest{ID: id, ExecID: execID, Signal: signal, All: all}, nil)
		if signal != uint32(unix.SIGKILL) || !IsUnavailable(err) || ctx.Err() != nil || c.successor(ctx, rpc) == nil {
			return err
		}
	}
}

// Wait blocks until the process has ended. Its output is in the log by then.
func (c *Client) Wait(ctx context.Context, id, execID string) (Exit, error) {
	var resp task.WaitResponse
	err := c.call(ctx, "Wait", &task.ProcessRequest{ID: id, ExecID: execID}, &resp)
	return Exit{Status: resp.ExitStatus, At: resp.ExitedAt}, err
}

// Delete forgets an ended process and frees what it held.
func (c *Client) Delete(ctx context.Context, id, execID string) (Exit, error) {
	var resp task.DeleteResponse
	err := c.call(ctx, "Delete", &task.ProcessRequest{ID: id, ExecID: execID}, &resp)
	return Exit{Status: resp.ExitStatus, At: resp.ExitedAt, Pid: resp.Pid}, err
}

// State reports the state of a process.
func (c *Client) State(ctx context.Context, id, execID string) (State, error) {
	var r task.StateResponse
	if err := c.call(ctx, "State", &task.ProcessRequest{ID: id, ExecID: execID}, &r); err != nil {
		return State{}, err
	}
	return State{
		ID: r.ID, ExecID: r.ExecID, Bundle: r.Bundle, Pid: r.Pid, Status: statusName(r.Status),
		Terminal: r.Terminal, ExitStatus: r.ExitStatus, ExitedAt: r.ExitedAt,
	}, nil
}

func statusName(s task.Status) string {
	switch s {
	case task.StatusCreated:
		return StatusCreated
	case task.StatusRunning:
		return StatusRunning
	case task.StatusStopped:
		return StatusStopped
	case task.StatusPaused:
		return StatusPaused
	case task.StatusPausing:
		return StatusPausing
	}
	return StatusUnknown
}

// Pids lists the processes of a container, by pids of the host.
func (c *Client) Pids(ctx context.Context, id string) ([]uint32, error) {
	var r task.PidsResponse
	err := c.call(ctx, "Pids", &task.ProcessRequest{ID: id}, &r)
	return r.Pids, err
}

// Resize sets the size of a process's terminal in characters.
func (c *Client) Resize(ctx context.Context, id, execID string, width, height uint32) error {
	return c.call(ctx, "ResizePty", &task.ResizeRequest{ID: id, ExecID: execID, Width: width, Height: height}, nil)
}

// CloseIO closes the stdin of a process.
func (c *Client) CloseIO(ctx context.Context, id, execID string) error {
	return c.call(ctx, "CloseIO", &task.CloseIORequest{ID: id, ExecID: execID, Stdin: true}, nil)
}

// Pause freezes a container.
func (c *Client) Pause(ctx context.Context, id string) error {
	return c.call(ctx, "Pause", &task.ProcessRequest{ID: id}, nil)
}

// Resume thaws a container.
func (c *Client) Resume(ctx context.Context, id string) error {
	return c.call(ctx, "Resume", &task.ProcessRequest{ID: id}, nil)
}

// Checkpoint saves a container's processes. One that is to end by it may have more to do when this returns: see Wait.
func (c *Client) Checkpoint(ctx context.Context, id string, r CheckpointRequest) error {
	o := task.CheckpointOptions{Exit: r.Exit, OpenTCP: true, ExternalUnixSockets: true, FileLocks: true, WorkPath: r.WorkPath}
	return c.call(ctx, "Checkpoint", &task.CheckpointRequest{
		ID: id, Path: r.Path, Options: task.Any{URL: task.TypeCheckpointOptions, Value: o.Append(nil)},
	}, nil)
}

// Update applies OCI LinuxResources given in JSON.
func (c *Client) Update(ctx context.Context, id string, resources []byte) error {
	return c.call(ctx, "Update", &task.UpdateRequest{
		ID: id, Resources: task.Any{URL: task.TypeResources, Value: resources},
	}, nil)
}

// Stats reads a container's resource use. A foreign shim, whose metrics have
// another type, gets an error.
func (c *Client) Stats(ctx context.Context, id string) (*cgroup.Stats, error) {
	var r task.StatsResponse
	if err := c.call(ctx, "Stats", &task.StatsRequest{ID: id, Native: true}, &r); err != nil {
		return nil, err
	}
	if r.Stats.URL != task.TypeStats {
		return nil, &ttrpc.Status{Code: ttrpc.Unimplemented, Message: "the shim's metrics have the type " + r.Stats.URL}
	}
	s := new(cgroup.Stats)
	if err := json.Unmarshal(r.Stats.Value, s); err != nil {
		return nil, err
	}
	return s, nil
}

// ReopenLog has the shim open a container's log anew, after someone else has
// moved the file away. Only our own shim can.
func (c *Client) ReopenLog(ctx context.Context, id string) error {
	r := task.ProcessRequest{ID: id}
	_, err := c.callRaw(ctx, task.ServiceOwn, "ReopenLog", r.Append(nil))
	return err
}

// Keep has the shim give all that it has to a keeper anew, after the last one died. Only our own shim can.
func (c *Client) Keep(ctx context.Context) error {
	_, err := c.callRaw(ctx, task.ServiceOwn, "Keep", nil)
	return err
}

// Run runs a process in a container from start to end, or to ctx's end: then, and when it takes longer than the timeout,
// it is killed with all that descend from it, and killed is true. Only our own shim can.
func (c *Client) Run(ctx context.Context, r RunRequest) (status uint32, killed bool, err error) {
	req := task.RunRequest{ID: r.ID, RunID: r.RunID, Stdout: r.Stdout, Stderr: r.Stderr, Spec: r.Spec, Timeout: r.Timeout}
	b, err := c.callRaw(ctx, task.ServiceOwn, "Run", req.Append(nil))
	if ctx.Err() != nil {
		go c.endRun(r.ID, r.RunID)
	}
	if err != nil {
		return 0, ctx.Err() != nil, err
	}
	var resp task.RunResponse
	err = resp.Unmarshal(b)
	return resp.ExitStatus, resp.Killed, err
}

// endRun ends a run that nobody waits for any more.
func (c *Client) endRun(id, run string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r := task.ProcessRequest{ID: id, ExecID: run}
	_, _ = c.callRaw(ctx, task.ServiceOwn, "EndRun", r.Append(nil)) // a shim that can't be asked ends with its processes
}

// Pid returns the shim's own pid.
func (c *Client) Pid(ctx context.Context) (int, error) {
	var r task.ConnectResponse
	err := c.call(ctx, "Connect", &task.ProcessRequest{}, &r)
	return int(r.ShimPid), err
}

// Shutdown asks the shim to end when it holds no container any more.
func (c *Client) Shutdown(ctx context.Context) error {
	err := c.call(ctx, "Shutdown", &task.ShutdownRequest{}, nil)
	if IsUnavailable(err) {
		// It ended before its answer was out.
		return nil
	}
	return err
}

// Alive tells whether there is a shim to call: the one that was, or one that takes over.
func (c *Client) Alive(ctx context.Context) bool {
	rpc := c.current()
	select {
	case <-rpc.Done():
		return c.successor(ctx, rpc) != nil
	default:
		return true
	}
}

// Done is closed when the connection of this moment has ended: the shim is gone, or Close was
// called.
func (c *Client) Done() <-chan struct{} { return c.current().Done() }

// Close drops the connection; the shim lives on.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return c.rpc.Close()
}

func hasCode(err error, code ttrpc.Code) bool {
	s, ok := errors.AsType[*ttrpc.Status](err)
	return ok && s.Code == code
}
