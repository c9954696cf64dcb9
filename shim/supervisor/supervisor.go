package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cale/shim/keep"
	"cale/shim/stdio"
	"cale/shim/task"
	"cale/shim/ttrpc"
)

const (
	sigKill = unix.SIGKILL
	// tidyDelay is how long after the last activity memory is given back.
	tidyDelay = 250 * time.Millisecond
	// worthCollecting is how many more bytes than after the last time, at first
	// than at the start, the process must have for that.
	worthCollecting = 1 << 20
	// firstPatience is how long a shim waits for its first container, and
	// lastPatience how long it stays after its last one, while nobody is
	// connected.
	firstPatience = time.Minute
	lastPatience  = 15 * time.Second
)

func signalOf(n uint32) unix.Signal { return unix.Signal(n) }

// Config says what a supervisor works with.
type Config struct {
	Namespace string
	// ID is the supervisor's own name, by which Keeper knows what is its.
	ID     string
	Keeper keep.Client
	// StateDir is where our runtime keeps its state; "" for a directory "state" in
	// each container's bundle.
	StateDir string
	// Own is our runtime; Foreign makes one of a command line.
	Own     Runtime
	Foreign func(o task.RuncOptions) Runtime
	// EventsAddress is containerd's ttrpc socket for events, "" for none.
	EventsAddress string
	// Ending is called once, before anybody is told that the shim ends; may be nil.
	Ending func()
	// Log takes lines about what went wrong without a caller to tell; may be nil.
	Log func(line string)
}

// Supervisor holds the containers of one shim.
type Supervisor struct {
	cfg    Config
	reaper *reaper
	hubs   stdio.Hubs
	events *events
	quit   chan struct{}
	once   sync.Once
	server *ttrpc.Server

	mu         sync.Mutex
	containers map[string]*container // nil while it is being created
	ending     bool
	idle       *time.Timer
	rest       *time.Timer

	resting sync.Mutex
	kept    int // bytes this process has after the last collection
}

// New makes a supervisor; this process becomes the subreaper of its containers.
func New(cfg Config) (*Supervisor, error) {
	r, err := newReaper()
	if err != nil {
		return nil, err
	}
	s := &Supervisor{
		cfg: cfg, reaper: r, quit: make(chan struct{}),
		containers: make(map[string]*container),
	}
	s.events = newEvents(cfg.EventsAddress, cfg.Namespace, s.logf)
	s.server = &ttrpc.Server{Handler: s.handle, Allow: samePeer}
	s.idle = time.AfterFunc(firstPatience, s.checkIdle)
	s.kept = ownMemory()
	s.rest = time.AfterFunc(tidyDelay, s.giveBack)
	return s, nil
}

// Server returns the server to serve the task API with.
func (s *Supervisor) Server() *ttrpc.Server { return s.server }

// Quit is closed when the shim should end.
func (s *Supervisor) Quit() <-chan struct{} { return s.quit }

// Finish waits for clients to take what is theirs, before the process ends.
func (s *Supervisor) Finish() {
	s.hubs.Wait(time.Minute)
	s.events.flush(5 * time.Second)
}

func (s *Supervisor) logf(line string) {
	if s.cfg.Log != nil {
		s.cfg.Log(line)
	}
}

// tidy has the heap given back to the kernel once all is quiet.
func (s *Supervisor) tidy() { s.rest.Reset(tidyDelay) }

// giveBack collects garbage and returns free memory. After little activity it
// does nothing: a collection's own tables take more (some pages for each size
// class in use) than it could free.
func (s *Supervisor) giveBack() {
	s.resting.Lock()
	defer s.resting.Unlock()
	if ownMemory() < s.kept+worthCollecting {
		return
	}
	debug.FreeOSMemory()
	s.kept = ownMemory()
}

// ownMemory is how many bytes this process has that are not parts of files. Go's
// own figures cost more to ask for than they tell.
func ownMemory() int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 3 {
		return 0
	}
	resident, _ := strconv.Atoi(f[1])
	shared, _ := strconv.Atoi(f[2])
	return (resident - shared) * os.Getpagesize()
}

func (s *Supervisor) checkIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.containers) > 0 {
		return // forget arms it again
	}
	if s.server.Conns() > 0 {
		s.idle.Reset(lastPatience)
		return
	}
	s.endLocked()
}

func (s *Supervisor) endLocked() {
	s.ending = true
	s.once.Do(func() {
		if s.cfg.Ending != nil {
			s.cfg.Ending()
		}
		close(s.quit)
	})
}

// reserve keeps the id for a container that is being created.
func (s *Supervisor) reserve(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return &ttrpc.Status{Code: ttrpc.Unavailable, Message: errGone.Error()}
	}
	if _, ok := s.containers[id]; ok {
		return &ttrpc.Status{Code: ttrpc.AlreadyExists, Message: "container " + id + " already exists"}
	}
	s.containers[id] = nil
	return nil
}

func (s *Supervisor) put(id string, c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c != nil {
		s.containers[id] = c
		return
	}
	delete(s.containers, id)
	if len(s.containers) == 0 {
		s.idle.Reset(lastPatience)
	}
}

func (s *Supervisor) forget(c *container) { s.put(c.id, nil) }

func (s *Supervisor) find(id, execID string) (*container, *process, error) {
	s.mu.Lock()
	c := s.containers[id]
	s.mu.Unlock()
	if c == nil {
		return nil, nil, notFound("container " + id)
	}
	p, err := c.find(execID)
	return c, p, err
}

func (s *Supervisor) create(ctx context.Context, r *task.CreateRequest) (int, error) {
	if r.ID == "" || !strings.HasPrefix(r.Bundle, "/") {
		return 0, &ttrpc.Status{Code: ttrpc.InvalidArgument, Message: "create: an id and an absolute bundle are needed"}
	}
	var opts task.RuncOptions
	if r.Options.URL == task.TypeOptions {
		if err := opts.Unmarshal(r.Options.Value); err != nil {
			return 0, err
		}
	}
	if err := s.reserve(r.ID); err != nil {
		return 0, err
	}
	c, err := s.createReserved(ctx, r, opts)
	if err != nil {
		s.put(r.ID, nil)
		return 0, err
	}
	return c.init.pid, nil
}

func (s *Supervisor) createReserved(ctx context.Context, r *task.CreateRequest, opts task.RuncOptions) (*container, error) {
	req := stdio.Request{
		Container: r.ID, Terminal: r.Terminal, Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr,
	}
	streams, err := s.hubs.Open(req)
	if err != nil {
		return nil, err
	}
	// A status of an earlier run must not be taken for this one's.
	os.Remove(filepath.Join(r.Bundle, exitFile))
	c := &container{id: r.ID, bundle: r.Bundle, init: newProcess(req, streams), options: r.Options.Clone()}
	rt := s.runtime(opts)
	if opts.BinaryName != "" {
		// On disk before the container exists, for whoever has to clean up.
		if err := keepOptions(r.Bundle, opts); err != nil {
			streams.Close()
			return nil, err
		}
	}
	c.foreign = opts.BinaryName != ""
	o := CreateOptions{
		ID: r.ID, Bundle: r.Bundle, StateDir: s.stateDir(r.Bundle), Rootfs: r.Rootfs,
		Streams: c.init.streams(), Options: opts, Checkpoint: r.Checkpoint,
	}
	if r.Checkpoint != "" {
		c.restore = func(ctx context.Context) (Box, error) { return rt.Restore(ctx, o) }
		c.made = waiting{c}
		s.put(c.id, c)
		s.events.created(r, 0)
		return c, nil
	}
	s.reaper.begin()
	defer s.reaper.end()
	if c.made, err = rt.Create(ctx, o); err != nil {
		streams.Close()
		return nil, err
	}
	// Nobody is told of its end before its creation.
	c.init.mu.Lock()
	defer c.init.mu.Unlock()
	s.begun(c)
	s.put(c.id, c)
	s.events.created(r, c.init.pid)
	return c, nil
}

// begun begins to look after a container that has a process; its init is locked.
func (s *Supervisor) begun(c *container) {
	_, remote := c.box().(Remote)
	if !remote && (c.foreign || c.box().SharesPids()) {
		s.reaper.expectOrphans()
	}
	c.init.pid = c.box().Pid()
	c.init.io.Run()
	s.hold(c, c.init)
	s.watch(c, "", c.init.io, c.init.pid, func(how end) { s.initExited(c, how) })
}

// runtime is who makes a container with these options.
func (s *Supervisor) runtime(o task.RuncOptions) Runtime {
	if o.BinaryName != "" {
		return s.cfg.Foreign(o)
	}
	return s.cfg.Own
}

func (s *Supervisor) stateDir(bundle string) string {
	if s.cfg.StateDir != "" {
		return s.cfg.StateDir
	}
	return filepath.Join(bundle, "state")
}

func (s *Supervisor) addExec(r *task.ExecRequest) error {
	c, _, err := s.find(r.ID, "")
	if err != nil {
		return err
	}
	if r.ExecID == "" || len(r.Spec.Value) == 0 {
		return &ttrpc.Status{Code: ttrpc.InvalidArgument, Message: "exec: an id and a process are needed"}
	}
	if c.init.ended() {
		return precondition("container " + c.id + " is not running")
	}
	req := stdio.Request{
		Container: r.ID, Exec: r.ExecID, Terminal: r.Terminal,
		Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deleted {
		return notFound("container " + c.id)
	}
	if c.execs[r.ExecID] != nil {
		return &ttrpc.Status{Code: ttrpc.AlreadyExists, Message: "exec " + r.ExecID + " already exists"}
	}
	streams, err := s.hubs.Open(req)
	if err != nil {
		return err
	}
	p := newProcess(req, streams)
	p.spec = append([]byte(nil), r.Spec.Value...)
	if c.execs == nil {
		c.execs = make(map[string]*process)
	}
	c.execs[r.ExecID] = p
	s.events.execAdded(c.id, r.ExecID)
	return nil
}

// shutdown ends the shim when it is empty; now also kills what it still holds.
func (s *Supervisor) shutdown(now bool) {
	s.mu.Lock()
	if len(s.containers) > 0 && !now {
		s.mu.Unlock()
		return
	}
	s.ending = true
	left := make([]*container, 0, len(s.containers))
	for _, c := range s.containers {
		if c != nil {
			left = append(left, c)
		}
	}
	s.mu.Unlock()
	for _, c := range left {
		s.reaper.begin()
		c.box().Kill(int(sigKill), true)
		s.reaper.end()
		select {
		case <-c.init.done:
		case <-time.After(10 * time.Second):
		}
		s.deleteContainer(context.Background(), c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked()
}

func unimplemented(what string) error {
	return &ttrpc.Status{Code: ttrpc.Unimplemented, Message: what + " is not implemented by this shim"}
}
