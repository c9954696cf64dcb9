package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cale/runtime"
	"cale/runtime/cgroup"
	"cale/runtime/criu"
	"cale/runtime/spec"
	"cale/shim/task"
	"cale/shim/ttrpc"
)

// Own is our runtime, called in this process.
type Own struct{}

// options translates a request.
func (o *CreateOptions) own() (runtime.Options, error) {
	ro := runtime.Options{
		ID: o.ID, Bundle: o.Bundle, StateDir: o.StateDir,
		Stdin: o.Streams.Stdin, Stdout: o.Streams.Stdout, Stderr: o.Streams.Stderr,
		Console: o.Streams.Console, NoPivot: o.Options.NoPivotRoot,
		NoNewKeyring: o.Options.NoNewKeyring, SystemdCgroup: o.Options.SystemdCgroup,
	}
	for _, m := range o.Rootfs {
		if m.Target != "" && m.Target != "/" {
			return ro, &ttrpc.Status{Code: ttrpc.InvalidArgument, Message: "rootfs mount with target " + m.Target + " is not supported"}
		}
		ro.Rootfs = append(ro.Rootfs, runtime.Mount{Type: m.Type, Source: m.Source, Options: m.Options})
	}
	return ro, nil
}

// Create makes a container with package runtime.
func (Own) Create(ctx context.Context, o CreateOptions) (Box, error) {
	ro, err := o.own()
	if err != nil {
		return nil, err
	}
	c, err := runtime.Create(ctx, ro)
	if err != nil {
		return nil, classify(err)
	}
	return newOwnBox(c), nil
}

// Restore makes a container of a checkpoint.
func (Own) Restore(ctx context.Context, o CreateOptions) (Box, error) {
	ro, err := o.own()
	if err != nil {
		return nil, err
	}
	c, err := runtime.Restore(ctx, ro, runtime.CheckpointOptions{
		ImagePath: o.Checkpoint, WorkPath: o.workPath(), FileLocks: true, TCPEstablished: true, ExtUnixSk: true,
	})
	if err != nil {
		return nil, classify(err)
	}
	return newOwnBox(c), nil
}

func newOwnBox(c *runtime.Container) *ownBox {
	b := &ownBox{c: c, shared: true}
	if s, err := c.Spec(); err == nil {
		b.shared = !spec.NewNamespace(s, specs.PIDNamespace)
	}
	if g, err := c.Cgroup(); err == nil && g != nil && !g.Fresh() {
		b.oomBefore = readOOMKills(g)
	}
	return b
}

// apply makes an exec's process fit its streams: the request rules over the
// specification, since it is what the client made the streams for.
func (s *Streams) apply(p *specs.Process) {
	p.Terminal = s.Console != nil
	if s.Width != 0 || s.Height != 0 {
		p.ConsoleSize = &specs.Box{Width: uint(s.Width), Height: uint(s.Height)}
	}
}

// applyTo is apply for a process in JSON.
func (s *Streams) applyTo(process []byte) ([]byte, error) {
	p := new(specs.Process)
	if err := json.Unmarshal(process, p); err != nil {
		return nil, invalid(err)
	}
	s.apply(p)
	return json.Marshal(p)
}

// Load finds a container on disk.
func (Own) Load(_ context.Context, o CreateOptions, _ int) (Box, task.Status, error) {
	c, err := runtime.Load(o.StateDir, o.ID)
	if err != nil {
		return nil, 0, classify(err)
	}
	st, err := c.Status()
	if err != nil {
		return nil, 0, classify(err)
	}
	b := newOwnBox(c)
	b.oomBefore = 0 // what the group counted before the container isn't known any more; most often there was none
	return b, taskStatus(string(st)), nil
}

// taskStatus translates a state of the OCI specification, or runc's "paused".
func taskStatus(state string) task.Status {
	switch state {
	case "creating", "created":
		return task.StatusCreated
	case "running":
		return task.StatusRunning
	case "paused":
		return task.StatusPaused
	}
	return task.StatusStopped
}

// Cleanup removes what is left of a container by force.
func (Own) Cleanup(_ context.Context, _, stateDir, id string) error {
	c, err := runtime.Load(stateDir, id)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.Delete(true)
}

// ownBox is a container of our runtime.
type ownBox struct {
	c         *runtime.Container
	shared    bool
	oomBefore uint64
}

func (b *ownBox) Pid() int { return b.c.InitPid() }

func (b *ownBox) Start(ctx context.Context) error { return classify(b.c.Start(ctx)) }

func (b *ownBox) Kill(sig int, all bool) error { return classify(b.c.Kill(unix.Signal(sig), all)) }

func (b *ownBox) Exec(ctx context.Context, _ string, process []byte, s Streams) (int, error) {
	p, err := spec.ParseProcess(process)
	if err != nil {
		return 0, &ttrpc.Status{Code: ttrpc.InvalidArgument, Message: "exec: malformed process: " + err.Error()}
	}
	s.apply(p)
	got, err := b.c.Exec(ctx, runtime.ExecOptions{
		Process: p, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, Console: s.Console,
	})
	if err != nil {
		return 0, classify(err)
	}
	if got.PidFD != nil {
		got.PidFD.Close() // the reaper goes by pid: a child's is its own until reaped
	}
	return got.Pid, nil
}

func (b *ownBox) Checkpoint(ctx context.Context, o CheckpointOptions) error {
	return classify(b.c.Checkpoint(ctx, runtime.CheckpointOptions{
		ImagePath: o.Path, WorkPath: o.WorkPath, LeaveRunning: !o.Exit, CgroupsMode: o.Options.CgroupsMode,
		TCPEstablished: o.Options.OpenTCP, ExtUnixSk: o.Options.ExternalUnixSockets, ShellJob: o.Options.Terminal,
		FileLocks: o.Options.FileLocks,
	}))
}

func (b *ownBox) Delete() error {
	err := b.c.Delete(true)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	return classify(err)
}

func (b *ownBox) Pause() error  { return classify(b.c.Pause()) }
func (b *ownBox) Resume() error { return classify(b.c.Resume()) }

func (b *ownBox) Update(resources []byte) error {
	r := new(specs.LinuxResources)
	if err := json.Unmarshal(resources, r); err != nil {
		return &ttrpc.Status{Code: ttrpc.InvalidArgument, Message: "update: malformed resources: " + err.Error()}
	}
	return classify(b.c.Update(r))
}

func (b *ownBox) Pids() ([]int, error) {
	pids, err := b.c.Pids()
	return pids, classify(err)
}

func (b *ownBox) Stats() (*cgroup.Stats, error) {
	s, err := b.c.Stats()
	return s, classify(err)
}

func (b *ownBox) SharesPids() bool { return b.shared }

func (b *ownBox) OOMKilled() bool { return b.oomKills() > b.oomBefore }

// oomKills reads the group's counter of processes killed for want of memory.
func (b *ownBox) oomKills() uint64 {
	g, err := b.c.Cgroup()
	if err != nil || g == nil {
		return 0
	}
	return readOOMKills(g)
}

func readOOMKills(g *cgroup.Cgroup) uint64 {
	dirs := g.Dirs()
	// v1 keeps the count with the memory controller, v2 in the one directory.
	if dir, ok := dirs["memory"]; ok {
		if n, ok := oomKillLine(dir + "/memory.oom_control"); ok {
			return n
		}
	}
	for _, dir := range dirs {
		if n, ok := oomKillLine(dir + "/memory.events"); ok {
			return n
		}
	}
	return 0
}

func oomKillLine(path string) (uint64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n := uint64(0)
			for _, c := range strings.TrimSpace(v) {
				n = n*10 + uint64(c-'0')
			}
			return n, true
		}
	}
	return 0, false
}

// classify gives an error of the runtime its class on the wire.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, runtime.ErrNotFound):
		return &ttrpc.Status{Code: ttrpc.NotFound, Message: err.Error()}
	case errors.Is(err, runtime.ErrExists):
		return &ttrpc.Status{Code: ttrpc.AlreadyExists, Message: err.Error()}
	case errors.Is(err, runtime.ErrNotRunning), errors.Is(err, runtime.ErrNotPaused), errors.Is(err, criu.ErrNotInstalled):
		return &ttrpc.Status{Code: ttrpc.FailedPrecondition, Message: err.Error()}
	case errors.Is(err, runtime.ErrCommandNotFound):
		return &ttrpc.Status{Code: ttrpc.Unknown, Message: err.Error(), Detail: task.DetailCommandNotFound}
	case errors.Is(err, runtime.ErrCommandNotExecutable):
		return &ttrpc.Status{Code: ttrpc.Unknown, Message: err.Error(), Detail: task.DetailCommandNotExecutable}
	}
	return err
}
