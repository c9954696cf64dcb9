package runtime

import (
	"context"

	"cale/runtime/cgroup"
	"cale/runtime/launch"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// unit is the systemd unit whose control group the container has; none without its driver.
func (c *Container) unit() (u cgroup.Unit, ok bool) {
	return cgroup.Unit{Name: c.rec.Unit, Slice: c.rec.Slice, User: c.rec.UID}, c.rec.Unit != ""
}

// setUnit writes down which unit the container will have, and thereby which group.
func (c *Container) setUnit(s *specs.Spec) error {
	u, err := cgroup.ParseUnit(s.Linux.CgroupsPath, c.rec.ID, c.rec.UID)
	if err != nil {
		return err
	}
	if c.rec.CgroupPath, err = u.Path(); err != nil {
		return err
	}
	c.rec.Unit, c.rec.Slice = u.Name, u.Slice
	return nil
}

// startUnit has systemd make the container's group. A scope needs a process: one that only waits holds it until init
// has come, and has to be ended then.
func (c *Container) startUnit(u cgroup.Unit, res *specs.LinuxResources) error {
	p := launch.New()
	defer p.Free()
	emitPrivate(p)
	p.Sync(syncReady)
	p.Call(unix.SYS_PPOLL, launch.N(0), launch.N(0), launch.N(0), launch.N(0), launch.N(0))
	holder, err := launch.Run(context.Background(), launch.Config{Program: p, Until: syncReady})
	if err != nil {
		return err
	}
	if err := u.Start(c.rec.ID, holder.Pid, res, c.spec.Annotations); err != nil {
		holder.Kill()
		return err
	}
	c.holder = holder
	return nil
}

// endHolder ends what has held the container's group.
func (c *Container) endHolder() {
	if c.holder != nil {
		c.holder.Kill()
		c.holder = nil
	}
}
