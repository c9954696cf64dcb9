// Package cgroup makes, limits, watches and removes the control groups of one container, on cgroup v1 (with or
// without a cgroup2 mount beside it) and on cgroup v2.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"cale/runtime/linux"

	"golang.org/x/sys/unix"
)

// Options say how a group's path is to be understood.
type Options struct {
	// Systemd takes the path as systemd's "slice:prefix:name".
	Systemd bool
	// Name is the group's name when the path is empty: the container's ID.
	Name string
	// Parent marks a group that only holds other groups: it gets no device rules, since a child may never be
	// allowed more than its parent.
	Parent bool
	// Rootless goes on without device rules where the kernel lets only root set them. Who isn't root can't make device
	// nodes either.
	Rootless bool

	root string // tests: a directory that stands for /sys/fs/cgroup
}

// Cgroup is one group: one directory in each mounted hierarchy. It holds no descriptors.
type Cgroup struct {
	groups []group
	v2     bool
	parent bool
	// rootless is Options.Rootless.
	rootless bool
	fresh    bool
	fake     bool // the files are a test's, not the kernel's
}

// group is the directory in one hierarchy.
type group struct {
	controllers []string // "" for cgroup2
	mount, dir  string
}

// Open works out the group's directories; it makes nothing. A path that starts with a slash lies below the root of
// every hierarchy's mount, any other below the caller's own group, as runc's cgroupfs driver has it.
func Open(cgroupsPath string, opts Options) (*Cgroup, error) {
	if opts.Systemd {
		u, err := ParseUnit(cgroupsPath, opts.Name, linux.User())
		if err == nil {
			cgroupsPath, err = u.Path()
		}
		if err != nil {
			return nil, err
		}
	}
	p := cgroupsPath
	if p == "" {
		p = opts.Name
	}
	if strings.ContainsAny(p, "\x00\n") || len(p) > 4000 {
		return nil, fmt.Errorf("cgroup path %q: not a path", cgroupsPath)
	}
	absolute := strings.HasPrefix(p, "/")
	// Cleaned as an absolute path, so that ".." can't lead out of the hierarchy.
	p = path.Clean("/" + p)
	if p == "/" {
		return nil, fmt.Errorf("cgroup path %q: a container cannot have the root group", cgroupsPath)
	}
	hs, err := hierarchies(opts.root)
	if err != nil {
		return nil, err
	}
	c := &Cgroup{parent: opts.Parent, rootless: opts.Rootless, fake: opts.root != ""}
	c.v2 = len(hs) == 1 && hs[0].controllers[0] == ""
	c.groups = make([]group, len(hs))
	for i, h := range hs {
		dir := h.mount + p
		if !absolute {
			own, err := h.ownDir()
			if err != nil {
				return nil, err
			}
			if c.v2 {
				// The caller's group has processes, so it can't hand controllers on: go beside it.
				own = path.Dir(own)
			}
			dir = path.Join(h.mount, own, p)
		}
		c.groups[i] = group{h.controllers, h.mount, dir}
	}
	return c, nil
}

// Dirs returns the directories by controller name; the cgroup2 hierarchy has the name "".
func (c *Cgroup) Dirs() map[string]string {
	dirs := make(map[string]string, len(c.groups)+2)
	for _, g := range c.groups {
		for _, name := range g.controllers {
			dirs[name] = g.dir
		}
	}
	return dirs
}

// dir returns the directory of one v1 controller, or of cgroup2 for "".
func (c *Cgroup) dir(controller string) (string, bool) {
	for _, g := range c.groups {
		if slices.Contains(g.controllers, controller) {
			return g.dir, true
		}
	}
	return "", false
}

// V2 reports whether the machine has cgroup v2 only.
func (c *Cgroup) V2() bool { return c.v2 }

// Exists reports whether the group is there.
func (c *Cgroup) Exists() bool {
	for _, g := range c.groups {
		var st unix.Stat_t
		if unix.Stat(g.dir, &st) == nil {
			return true
		}
	}
	return false
}

// AddProc moves a process into the group. On v1 a child that joins by itself is quicker: see SelfFiles.
func (c *Cgroup) AddProc(pid int) error {
	if pid <= 0 {
		return fmt.Errorf("add process %d to a cgroup: no such process", pid)
	}
	for _, file := range c.ProcsFiles() {
		dir, name := path.Split(file)
		if err := c.write(strings.TrimSuffix(dir, "/"), name, fmt.Sprint(pid)); err != nil {
			return fmt.Errorf("add process %d to a cgroup: %w", pid, err)
		}
	}
	return nil
}

// V2FD opens the group's directory for clone3's CLONE_INTO_CGROUP on a v2 machine; on v1 and hybrid it is nil, nil.
func (c *Cgroup) V2FD() (*os.File, error) {
	if !c.v2 {
		return nil, nil
	}
	return c.CloneFD()
}

// CloneFD is V2FD that also answers on hybrid machines (nil only without any cgroup2 mount). A child cloned
// through it still has to join SelfFiles.
func (c *Cgroup) CloneFD() (*os.File, error) {
	dir, ok := c.dir("")
	if !ok {
		return nil, nil
	}
	fd, err := openRetry(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open cgroup", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// SelfFiles are the files in which a child that has one thread writes "0" to join, beside CloneFD: the v1 `tasks`
// files. That takes no machine-wide lock, where cgroup.procs may wait for an RCU grace period. Empty on v2.
func (c *Cgroup) SelfFiles() []string {
	var files []string
	for _, g := range c.groups {
		if g.controllers[0] != "" {
			files = append(files, g.dir+"/tasks")
		}
	}
	return files
}

// ProcsFiles are the cgroup.procs files of all hierarchies; writing a pid into each moves the process.
func (c *Cgroup) ProcsFiles() []string {
	files := make([]string, len(c.groups))
	for i, g := range c.groups {
		files[i] = g.dir + "/cgroup.procs"
	}
	return files
}

// Delegate gives the group to a user, so that root of a user namespace can manage it, as far as the kernel says
// that is safe. It does so on v2 only: a delegated v1 group could lift its own limits.
func (c *Cgroup) Delegate(uid int) error {
	if !c.v2 {
		return nil
	}
	dir := c.groups[0].dir
	names := "cgroup.procs\ncgroup.subtree_control\ncgroup.threads"
	if s, err := read("/sys/kernel/cgroup", "delegate"); err == nil {
		names = s
	}
	for _, name := range append([]string{"."}, strings.Fields(names)...) {
		err := os.Lchown(path.Join(dir, name), uid, -1)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delegate cgroup: %w", err)
		}
	}
	return nil
}
