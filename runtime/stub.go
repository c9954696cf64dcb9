package runtime

import (
	"context"
	"errors"
	"os"

	"cale/runtime/cgroup"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var errNotBuilt = errors.New("runtime: not built yet")

type Container struct{}

func Create(ctx context.Context, o Options) (*Container, error) { return nil, errNotBuilt }
func Load(stateDir, id string) (*Container, error)              { return nil, errNotBuilt }
func List(stateDir string) ([]State, error)                     { return nil, errNotBuilt }
func (c *Container) Start(ctx context.Context) error            { return errNotBuilt }
func (c *Container) State() (State, error)                      { return State{}, errNotBuilt }
func (c *Container) Kill(sig unix.Signal, all bool) error       { return errNotBuilt }
func (c *Container) Delete(force bool) error                    { return errNotBuilt }
func (c *Container) Exec(ctx context.Context, o ExecOptions) (*Process, error) {
	return nil, errNotBuilt
}
func (c *Container) Pause() error                           { return errNotBuilt }
func (c *Container) Resume() error                          { return errNotBuilt }
func (c *Container) Update(res *specs.LinuxResources) error { return errNotBuilt }
func (c *Container) Pids() ([]int, error)                   { return nil, errNotBuilt }
func (c *Container) Stats() (*cgroup.Stats, error)          { return nil, errNotBuilt }
func (c *Container) InitPid() int                           { return 0 }
func (c *Container) ID() string                             { return "" }
func (c *Container) Cgroup() (*cgroup.Cgroup, error)        { return nil, errNotBuilt }

// PidFD returns init's pidfd when the container was created by this process; it belongs to the container.
func (c *Container) PidFD() *os.File { return nil }
