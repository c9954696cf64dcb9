package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Create makes the directories and sets the limits. Device access starts from "nothing", to which res.Devices and
// then the devices every container has are added, as in runc. A nil res sets no limits (devices still apply).
// After an error nothing that Create made is left.
func (c *Cgroup) Create(res *specs.LinuxResources) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, dir := range made {
				_ = remove(dir)
			}
		}
	}()
	for _, g := range c.groups {
		fresh, err := c.mkdir(g)
		if err != nil {
			return err
		}
		if fresh {
			made = append(made, g.dir)
		}
	}
	c.fresh = len(made) == len(c.groups)
	if c.v2 {
		if err := c.enableControllers(c.groups[0]); err != nil {
			return err
		}
	}
	if res == nil {
		res = &specs.LinuxResources{}
	}
	if !c.parent {
		err := c.setDevices(res.Devices, c.fresh)
		if err != nil && !(c.rootless && errors.Is(err, os.ErrPermission)) {
			return err
		}
	}
	return c.limit(res, true)
}

// Fresh reports whether Create has made all the directories: nothing has happened in the group before.
func (c *Cgroup) Fresh() bool { return c.fresh }

// Apply changes limits of an existing group: what res doesn't name stays. Devices stay when res.Devices is empty.
func (c *Cgroup) Apply(res *specs.LinuxResources) error {
	if res == nil {
		return nil
	}
	if len(res.Devices) > 0 {
		if err := c.setDevices(res.Devices, false); err != nil {
			return err
		}
	}
	return c.limit(res, false)
}

func (c *Cgroup) limit(res *specs.LinuxResources, fresh bool) error {
	if c.v2 {
		return c.limitV2(res)
	}
	if len(res.Unified) > 0 {
		return errors.New("invalid configuration: resources.unified needs cgroup v2, this machine has v1")
	}
	return c.limitV1(res, fresh)
}

// mkdir makes the group's directory and those above it, and reports whether it is new. A new cpuset group has no
// processors and no memory nodes, and nothing can join it: each takes what the one above it has.
func (c *Cgroup) mkdir(g group) (bool, error) {
	cpuset := false
	for _, name := range g.controllers {
		cpuset = cpuset || name == "cpuset"
	}
	err := mkdirRetry(g.dir)
	if err == unix.ENOENT {
		rest := strings.TrimPrefix(g.dir, g.mount+"/")
		dir := g.mount
		for name := range strings.SplitSeq(rest, "/") {
			parent := dir
			dir += "/" + name
			// Another container's creation may make the same parent at the same time.
			if err = mkdirRetry(dir); err != nil && err != unix.EEXIST {
				break
			}
			if cpuset {
				if err := c.inheritCPUSet(parent, dir); err != nil {
					return false, err
				}
			}
		}
		cpuset = false
	}
	if err != nil && err != unix.EEXIST {
		return false, &os.PathError{Op: "make cgroup", Path: g.dir, Err: err}
	}
	if cpuset {
		if err := c.inheritCPUSet(path.Dir(g.dir), g.dir); err != nil {
			return false, err
		}
	}
	return err == nil, nil
}

func mkdirRetry(dir string) error {
	for {
		if err := unix.Mkdir(dir, 0o755); err != unix.EINTR {
			return err
		}
	}
}

func (c *Cgroup) inheritCPUSet(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if have, err := read(dir, name); err != nil && !(c.fake && isGone(err)) {
			return err
		} else if strings.TrimSpace(have) != "" {
			continue
		}
		value, err := read(parent, name)
		if err != nil {
			if c.fake && isGone(err) {
				continue
			}
			return err
		}
		if strings.TrimSpace(value) == "" && !c.fake {
			// Whoever made the parent gave it nothing. The hierarchy's root always has all there is.
			if err := c.inheritCPUSet(path.Dir(parent), parent); err != nil {
				return err
			}
			if value, err = read(parent, name); err != nil {
				return err
			}
		}
		if err := c.write(dir, name, value); err != nil {
			return err
		}
	}
	return nil
}

// handedOn are the v2 controllers a container's group gets, so that they can be limited or at least counted.
var handedOn = []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"}

// enableControllers turns on, in every group above g, the controllers the machine has. What can't be turned on
// (a real-time process may forbid cpu) is an error only when a limit needs it, and then that write fails.
func (c *Cgroup) enableControllers(g group) error {
	text, err := read(g.mount, "cgroup.controllers")
	if err != nil {
		return err
	}
	have := " " + text + " "
	for dir := g.mount; dir != g.dir; {
		on, err := read(dir, "cgroup.subtree_control")
		if err != nil && !(c.fake && isGone(err)) {
			return err
		}
		on = " " + on + " "
		var want []string
		for _, name := range handedOn {
			if strings.Contains(have, " "+name+" ") && !strings.Contains(on, " "+name+" ") {
				want = append(want, "+"+name)
			}
		}
		if len(want) > 0 && c.write(dir, "cgroup.subtree_control", strings.Join(want, " ")) != nil {
			for _, w := range want {
				_ = c.write(dir, "cgroup.subtree_control", w)
			}
		}
		rest := strings.TrimPrefix(g.dir, dir+"/")
		next, _, _ := strings.Cut(rest, "/")
		dir += "/" + next
	}
	return nil
}

// missing says which controller a limit wanted in vain.
func missing(limit, controller string) error {
	return fmt.Errorf("cannot set %s: the %s cgroup controller is not available", limit, controller)
}
