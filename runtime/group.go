package runtime

import (
	"errors"
	"fmt"
	"os"

	"cale/runtime/cgroup"
	"cale/runtime/linux"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// makeCgroup makes the container's group, unless the caller may not and didn't ask for anything.
func (c *Container) makeCgroup(o Options, privileged bool) (*cgroup.Cgroup, error) {
	if o.NoCgroup {
		c.rec.NoCgroup = true
		return nil, c.save()
	}
	res := c.spec.Linux.Resources
	if u, ok := c.unit(); ok {
		if err := c.startUnit(u, res); err != nil {
			return nil, err
		}
	}
	group, err := cgroup.Open(c.rec.CgroupPath, cgroup.Options{Name: c.rec.ID, Rootless: !privileged || linux.InUserNamespace()})
	if err == nil {
		c.group = group
		err = group.Create(res)
	}
	if err == nil {
		return group, nil
	}
	if !forbidden(err) {
		return nil, err
	}
	err = fmt.Errorf("unable to apply cgroup configuration: %w", err)
	if c.rec.CgroupPath != "" || privileged && !linux.InUserNamespace() {
		return nil, err
	}
	if name := firstLimit(res); name != "" {
		return nil, fmt.Errorf("cannot set %s limit: container could not join or create cgroup: %w", name, err)
	}
	if !spec.NewNamespace(c.spec, specs.PIDNamespace) {
		o.Warn("Creating a rootless container with no cgroup and no private pid namespace. " +
			"Such configuration is strongly discouraged: nothing holds its processes together when they are to end.")
	}
	// Nothing was asked of a group: engines of users without rights rely on hearing nothing either.
	if o.Debug != nil {
		o.Debug("running without a cgroup: " + err.Error())
	}
	c.rec.NoCgroup = true
	c.group = nil
	return nil, c.save()
}

// checkCgroup refuses a group that others are in, or that is frozen, so that nothing could start in it.
func checkCgroup(cgroupsPath, id string) error {
	g, err := cgroup.Open(cgroupsPath, cgroup.Options{Name: id})
	if err != nil || !g.Exists() {
		return nil // what is wrong is found when it is made
	}
	if pids, err := g.Pids(); err == nil && len(pids) > 0 {
		return fmt.Errorf("container's cgroup is not empty: %d process(es) found", len(pids))
	}
	if frozen, err := g.Frozen(); err == nil && frozen {
		return errors.New("container's cgroup unexpectedly frozen")
	}
	return nil
}

// openCgroup opens what a child needs to be in a group: a directory to be cloned into, and files to write to.
func openCgroup(g *cgroup.Cgroup) (*os.File, []*os.File, error) {
	dir, err := g.CloneFD()
	if err != nil {
		return nil, nil, err
	}
	var files []*os.File
	for _, name := range g.SelfFiles() {
		f, err := openTask(name)
		if err != nil {
			closeAll(append(files, dir))
			return nil, nil, err
		}
		files = append(files, f)
	}
	return dir, files, nil
}

// openTask opens a file to which a child writes that it is to be in a group. Package os would make it one to be polled,
// in a handful of system calls, and what a child gets back again in a few more.
func openTask(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
