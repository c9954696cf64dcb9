package runtime

import (
	"errors"
	"fmt"
	"os"

	"cale/runtime/cgroup"
	"cale/runtime/launch"
	"cale/runtime/resctrl"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// errNoCgroup is what needs a group and has none: a container made without the right to make one.
var errNoCgroup = errors.New("the container has no cgroup")

// tight reports whether a memory limit is so low that a process may not even come to its execve.
func tight(r *specs.LinuxResources) bool {
	return r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 && *r.Memory.Limit < 1<<20
}

// firstLimit names a limit that a container is to have, as its controller is called; "" if it is to have none.
func firstLimit(r *specs.LinuxResources) string {
	switch {
	case r == nil:
		return ""
	case r.Memory != nil:
		return "memory"
	case r.CPU != nil:
		return "cpu"
	case r.Pids != nil:
		return "pids"
	case r.BlockIO != nil:
		return "io"
	case len(r.HugepageLimits) > 0:
		return "hugetlb"
	case r.Network != nil:
		return "network"
	case len(r.Rdma) > 0:
		return "rdma"
	case len(r.Unified) > 0:
		return "unified"
	}
	return ""
}

// forbidden reports whether groups are there but not for us, can't be written to, or aren't there at all.
func forbidden(err error) bool {
	return errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, cgroup.ErrAbsent)
}

// oomError says of a process that was killed on its way that it was for want of memory, if it was.
func oomError(g *cgroup.Cgroup, err error) error {
	if g == nil || !errors.Is(err, launch.ErrDied) {
		return err
	}
	if n, kerr := g.OOMKills(); kerr == nil && n > 0 {
		return fmt.Errorf("container init was OOM-killed (memory limit too low?): %w", err)
	}
	return err
}

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
		return ErrNotPaused
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
		if err := u.Update(g, res); err != nil {
			return err
		}
	}
	return g.Apply(res)
}

// makeResctrl makes the container's group of caches and memory bandwidth, and opens the files that it joins by.
func (c *Container) makeResctrl() ([]*os.File, error) {
	rdt := c.spec.Linux.IntelRdt
	if rdt == nil {
		return nil, nil
	}
	mount, err := resctrl.Mount()
	if err != nil {
		return nil, err
	}
	g, err := resctrl.Place(mount, rdt, c.rec.ID)
	if err != nil {
		return nil, err
	}
	c.rec.Resctrl = g
	if err := c.save(); err != nil {
		return nil, err
	}
	if err := g.Create(rdt); err != nil {
		return nil, err
	}
	return openTasks(g)
}

// openTasks opens the files by which a process joins a group; none without one.
func openTasks(g resctrl.Group) ([]*os.File, error) {
	if g.Dir == "" {
		return nil, nil
	}
	var files []*os.File
	for _, name := range g.TaskFiles() {
		f, err := openTask(name)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("intelRdt: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}

// UpdateResctrl changes the container's shares of caches and memory bandwidth.
func (c *Container) UpdateResctrl(rdt *specs.LinuxIntelRdt) error {
	if c.rec.Resctrl.Dir == "" {
		return fmt.Errorf("container %s has no intelRdt class", c.rec.ID)
	}
	return c.rec.Resctrl.Update(rdt)
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
