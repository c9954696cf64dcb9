// Package runtime is the low-level container runtime: it turns an OCI configuration into a process in its own
// namespaces, control groups and root file system, and keeps what is needed to find that process again on disk.
//
// A container's life follows the OCI runtime specification: Create makes everything and leaves the process waiting
// just before its execve, Start lets it go on, Delete removes what is left. There is no daemon and no lock held
// between calls: each call reads the state directory and asks the kernel.
package runtime

import (
	"errors"
	"os"
	"time"

	"cale/runtime/rootfs"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Classes of errors; test with errors.Is. The text of an error that carries one is for people and follows runc's
// wording where callers are known to match it.
var (
	// ErrNotFound: no container of that ID in the state directory.
	ErrNotFound = errors.New("container does not exist")
	// ErrExists: the ID is taken.
	ErrExists = errors.New("container with given ID already exists")
	// ErrNotRunning: the operation needs a process that is there.
	ErrNotRunning = errors.New("container not running")
	// ErrNotPaused refuses to resume what is not paused.
	ErrNotPaused = errors.New("container not paused")
	// ErrNoProcess: the configuration says nothing of what to run.
	ErrNoProcess = errors.New("the configuration has no process")
	// ErrCommandNotFound: the program to run isn't in the container (exit status 127).
	ErrCommandNotFound = errors.New("executable file not found")
	// ErrCommandNotExecutable: the program is there and may not or can't be run (exit status 126).
	ErrCommandNotExecutable = errors.New("executable file cannot be run")
	// ErrInit: the process could not be made what the configuration asks for.
	ErrInit = errors.New("the process could not be set up")
)

// Status is the OCI state of a container.
type Status string

// The OCI specification's states, and "paused" as runc adds it.
const (
	Creating Status = "creating"
	Created  Status = "created"
	Running  Status = "running"
	Paused   Status = "paused"
	Stopped  Status = "stopped"
)

// State is what `state` and `list` print: the OCI state with runc's additions.
type State struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      Status            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

// Mount is a file system to be made as the container's root. It is mounted detached: no other process sees it.
type Mount = rootfs.Mount

// Options say what to create. The files belong to the caller, who may close them once Create has returned.
type Options struct {
	// ID names the container below StateDir: 1 to 1024 of [A-Za-z0-9_+.-].
	ID string
	// Bundle is the directory that holds config.json; relative paths of the configuration start there.
	Bundle string
	// StateDir holds one directory for each container. It is made 0700 if absent.
	StateDir string
	// Spec is used instead of the bundle's config.json.
	Spec *specs.Spec
	// Config is Spec as JSON, for callers who have it: it is kept for later calls. Making it anew takes time.
	Config []byte
	// Rootfs are mounted, each over the one before, as the root instead of the spec's root.path.
	Rootfs []Mount
	// Stdin, Stdout and Stderr of a container without terminal; nil means /dev/null.
	Stdin, Stdout, Stderr *os.File
	// ConsoleSocket is a Unix socket that gets the terminal's master as runc sends it.
	ConsoleSocket string
	// Console gets the terminal's master, and then owns it.
	Console func(master *os.File)
	// PidFile gets init's pid, written by rename.
	PidFile string
	// PreserveFDs is how many of the caller's descriptors from 3 on the process keeps.
	PreserveFDs int
	// NoPivot uses a chroot instead of pivot_root: for hosts that run on an initramfs. It is less safe.
	NoPivot bool
	// NoNewKeyring keeps the caller's session keyring.
	NoNewKeyring bool
	// SystemdCgroup asks for systemd's cgroup driver.
	SystemdCgroup bool
	// NotifySocket is the socket of the service manager that is to hear when the container is ready: see Ready.
	NotifySocket string
	// KeepGroups leaves the process the caller's additional groups instead of those of the configuration.
	KeepGroups bool
	// NoCgroup leaves the process in the caller's control group, without limits.
	NoCgroup bool
	// Warn gets a line for each thing that was asked, can't be had here, and may be done without. Nil drops them.
	Warn func(msg string)
	// Debug gets a line for what is worth knowing when something is looked for, of the child's progress too, which
	// waits for each. Nil drops them, and is faster.
	Debug func(msg string)
}

// ExecOptions say what to run in a container that is there.
type ExecOptions struct {
	// Process must be complete: nothing is taken from the container's own process.
	Process *specs.Process
	// Stdin, Stdout and Stderr of a process without terminal; nil means /dev/null.
	Stdin, Stdout, Stderr *os.File
	// ConsoleSocket and Console are as in Options.
	ConsoleSocket string
	Console       func(master *os.File)
	// PidFile gets the pid, written by rename.
	PidFile string
	// PreserveFDs is how many of the caller's descriptors from 3 on the process keeps.
	PreserveFDs int
	// KeepGroups is as in Options.
	KeepGroups bool
	// CgroupSub is a group below the container's own to put the process in, by controller; "" is for all.
	CgroupSub map[string]string
	// IgnorePaused runs the process although the container is paused: it waits until it is thawed.
	IgnorePaused bool
	// Warn and Debug are as in Options.
	Warn  func(msg string)
	Debug func(msg string)
}

// Process is a process that Exec started. It is a child of the caller, who reaps it and closes PidFD.
type Process struct {
	Pid   int
	PidFD *os.File
}
