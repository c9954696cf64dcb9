package runtime

import (
	"errors"
	"fmt"

	"cale/runtime/cgroup"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// errNoCgroup is what needs a group and has none: a container made without the right to make one.
var errNoCgroup = errors.New("the container has no cgroup")

// running returns the group of a container that has a process.
func (c *Container) running() (*cgroup.Cgroup, error) {
	g, err := c.Cgroup()
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, errNoCgroup
	}
	if !c.alive() {
		return nil, ErrNotRunning
	}
	return g, nil
}

// Pause freezes all processes of the container.
func (c *Container) Pause() error {
	g, err := c.running()
	if err != nil {
		return err
	}
	return g.Freeze()
}

// Resume thaws what Pause froze.
func (c *Container) Resume() error {
	g, err := c.running()
	if err != nil {
		return err
	}
	if frozen, err := g.Frozen(); err == nil && !frozen {
		return fmt.Errorf("container not paused")
	}
	return g.Thaw()
}

// Update changes limits; what res doesn't name stays.
func (c *Container) Update(res *specs.LinuxResources) error {
	g, err := c.running()
	if err != nil {
		return err
	}
	if u, ok := c.unit(); ok {
		if err := u.Update(res, g.V2()); err != nil {
			return err
		}
	}
	return g.Apply(res)
}

// Pids lists the processes of the container, as the caller's pid namespace numbers them.
func (c *Container) Pids() ([]int, error) {
	g, err := c.Cgroup()
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, errNoCgroup
	}
	return g.Pids()
}

// Stats reads the group's counters.
func (c *Container) Stats() (*cgroup.Stats, error) {
	g, err := c.running()
	if err != nil {
		return nil, err
	}
	return g.Stats()
}
