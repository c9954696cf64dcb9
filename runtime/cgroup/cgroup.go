// Package cgroup makes, limits, watches and removes the control groups of one container, on cgroup v1 (with or
// without a cgroup2 mount beside it) and on cgroup v2.
package cgroup

import (
	"errors"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var errNotBuilt = errors.New("cgroup: not built yet")

// Options say how a group's path is to be understood.
type Options struct {
	// Systemd takes the path as systemd's "slice:prefix:name".
	Systemd bool
	// Name is the group's name when the path is empty: the container's ID.
	Name string
	// Parent marks a group that only holds other groups: it gets no device rules, since a child may never be
	// allowed more than its parent.
	Parent bool

	root string // tests: a directory that stands for /sys/fs/cgroup
}

// Cgroup is one group: one directory in each mounted hierarchy. It holds no descriptors.
type Cgroup struct{}

// Open works out the group's directories; it makes nothing. A path that starts with a slash lies below the root of
// every hierarchy's mount, any other below the caller's own group, as runc's cgroupfs driver has it.
func Open(path string, opts Options) (*Cgroup, error) { return nil, errNotBuilt }

// Create makes the directories and sets the limits. Device access starts from "nothing", to which res.Devices and
// then the devices every container has are added, as in runc. A nil res sets no limits (devices still apply).
func (c *Cgroup) Create(res *specs.LinuxResources) error { return errNotBuilt }

// Apply changes limits of an existing group: what res doesn't name stays. Devices stay when res.Devices is empty.
func (c *Cgroup) Apply(res *specs.LinuxResources) error { return errNotBuilt }

// Dirs returns the directories by controller name; the cgroup2 hierarchy has the name "".
func (c *Cgroup) Dirs() map[string]string { return nil }

// Exists reports whether the group is there.
func (c *Cgroup) Exists() bool { return false }

// AddProc moves a process into the group. On v1 a child that joins by itself is quicker: see SelfFiles.
func (c *Cgroup) AddProc(pid int) error { return errNotBuilt }

// V2FD opens the group's directory for clone3's CLONE_INTO_CGROUP on a v2 machine; on v1 and hybrid it is nil, nil.
func (c *Cgroup) V2FD() (*os.File, error) { return nil, errNotBuilt }

// CloneFD is V2FD that also answers on hybrid machines (nil only without any cgroup2 mount). A child cloned
// through it still has to join SelfFiles.
func (c *Cgroup) CloneFD() (*os.File, error) { return nil, errNotBuilt }

// SelfFiles are the files in which a child that has one thread writes "0" to join, beside CloneFD: the v1 `tasks`
// files. That takes no machine-wide lock, where cgroup.procs waits for an RCU grace period. Empty on v2.
func (c *Cgroup) SelfFiles() []string { return nil }

// ProcsFiles are the cgroup.procs files of all hierarchies; writing a pid into each moves the process.
func (c *Cgroup) ProcsFiles() []string { return nil }

// Freeze stops all processes of the group and waits until they are stopped.
func (c *Cgroup) Freeze() error { return errNotBuilt }

// Thaw lets a frozen group go on.
func (c *Cgroup) Thaw() error { return errNotBuilt }

// Frozen reports whether the group is frozen (or being frozen).
func (c *Cgroup) Frozen() (bool, error) { return false, errNotBuilt }

// Pids lists the processes of the group and of the groups below it.
func (c *Cgroup) Pids() ([]int, error) { return nil, errNotBuilt }

// Kill sends SIGKILL to all processes of the group and the groups below, frozen or not, until none is left or 10 s
// have passed.
func (c *Cgroup) Kill() error { return errNotBuilt }

// Destroy removes the group and the groups below it. Groups that are gone already are no error.
func (c *Cgroup) Destroy() error { return errNotBuilt }

// Stats reads the counters the mounted controllers have.
func (c *Cgroup) Stats() (*Stats, error) { return nil, errNotBuilt }

// WatchOOM sends on the channel whenever the group ran out of memory (events close together may be one). The
// channel is closed when the group is removed or stop is called.
func (c *Cgroup) WatchOOM() (events <-chan struct{}, stop func(), err error) {
	return nil, nil, errNotBuilt
}
