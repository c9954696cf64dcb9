package engine

import (
	"io"
	"net/netip"
	"time"

	"cale/runtime/cgroup"
)

// Runtime is a configured runtime: the program of an OCI runtime, or of a containerd shim.
type Runtime struct {
	Path string
	Args []string
}

// Config says where an engine lives and what it runs.
type Config struct {
	Root, Run      string // what outlives a reboot, and what does not
	ConfigDir      string // of what an administrator sets: certs.d, registries.conf, policy.json, runtimes.json, images.json; "" is none
	CgroupParent   string // "" chooses /cale, or one named after Run when that is not /run/cale
	Shim           string // path of cale-shim; "" looks beside the executable, then in $PATH
	Init           string // path of the init program for Spec.Init; "" looks for docker-init, tini, catatonit in $PATH
	Runtimes       map[string]Runtime
	DefaultRuntime string
	CNI            CNI
	CDIDirs        []string                                  // where descriptions of devices are; nil is CDI's own
	Firewall       string                                    // what networks do that don't say: "host" has the host's rules for incoming traffic hold for published ports; "" is "published"
	DNS            []string                                  // name servers for containers that name none
	Credentials    func(host string) (user, password string) // for pulls that bring none; may be nil
	Log            func(format string, args ...any)          // where the engine says what nobody waits for; may be nil
	PlainHTTP      func(host string) bool                    // nil is loopback only
	Labels         []string
}

// StartOptions is how a container is started: anew, or where a checkpoint of that name has left it. CheckpointDir is as
// CheckpointOptions.Dir.
type StartOptions struct{ Checkpoint, CheckpointDir string }

// StopOptions is how a container is stopped. Timeout is in seconds; nil takes the container's, negative waits for ever.
type StopOptions struct {
	Signal  string
	Timeout *int
}

// RemoveOptions says what goes with a container.
type RemoveOptions struct{ Force, Volumes bool }

// WaitResult is how a wait ended.
type WaitResult struct {
	ExitCode int
	Err      string
}

// LogOptions chooses log lines. Tail -1 is all of them; zero times are no limit.
type LogOptions struct {
	Stdout, Stderr, Follow, Timestamps, Details bool
	Since, Until                                time.Time
	Tail                                        int
}

// LogEntry is one line of output. Line includes its newline if it had one; Stream is stdout or stderr.
type LogEntry struct {
	Time   time.Time
	Stream string
	Line   []byte
	// Continued says that the line began in an earlier entry: no time stamp or prefix belongs before it.
	Continued bool
	Attrs     map[string]string
}

// LogStream reads log lines until io.EOF. Close may be called at any time, from any goroutine.
type LogStream interface {
	Next() (LogEntry, error)
	Close() error
}

// AttachOptions says what to connect. Logs replays what was written before; Stream goes on with what comes.
type AttachOptions struct{ Stdin, Stdout, Stderr, Logs, Stream bool }

// Stream is a connection to a process's stdio. Read gives Docker's frames (1 stdout or 2 stderr, three zeros, a
// big-endian length, then data), also for terminals; the end of the process's output is io.EOF. Stream is a pointer,
// never nil without an error.
type Stream struct {
	io.Reader
	TTY bool

	write      func([]byte) (int, error)
	closeWrite func() error
	close      func() error
	detached   func() // tells of Detach; nil where nobody asks
	ready      <-chan struct{}
}

// Ready is closed when there is a process to write to, or there will be none; nil where that was so from the start.
func (s *Stream) Ready() <-chan struct{} { return s.ready }

// Write sends stdin.
func (s *Stream) Write(p []byte) (int, error) { return s.write(p) }

// CloseWrite ends stdin.
func (s *Stream) CloseWrite() error { return s.closeWrite() }

// Close lets the process go on alone.
func (s *Stream) Close() error { return s.close() }

// Detach is Close by the wish of whoever is at the terminal.
func (s *Stream) Detach() error {
	if s.detached != nil {
		s.detached()
	}
	return s.close()
}

// ExecStartOptions says how an exec session is started. Detached sessions have no Stream.
type ExecStartOptions struct {
	Detach, TTY bool
	ConsoleSize [2]uint // height, width
}

// Credentials is what a client gave for one registry. Token is an identity token, for which the registry's token
// service gives others; Bearer is one of those already, and sent as it is.
type Credentials struct{ User, Password, Token, Bearer string }

// RemovedImage is one step of an image's removal: exactly one field is set.
type RemovedImage struct{ Untagged, Deleted string }

// Pruned says what a prune took away.
type Pruned struct {
	IDs   []string
	Bytes int64
}

// PrunedImages is Pruned for images.
type PrunedImages struct {
	Removed []RemovedImage
	Bytes   int64
}

// Change is a path that differs from the image: Kind is 0 changed, 1 added, 2 deleted.
type Change struct {
	Kind int
	Path string
}

// PathStat describes a file in a container.
type PathStat struct {
	Name       string
	Size       int64
	Mode       uint32 // as Go's fs.FileMode
	Mtime      time.Time
	LinkTarget string
}

// CopyOptions is how an archive is put into a container.
type CopyOptions struct{ NoOverwriteDirNonDir, CopyUIDGID bool }

// Stats is what a container has used. Times are nanoseconds.
type Stats struct {
	Read     time.Time
	CPU      CPUStats
	Memory   MemoryStats
	Pids     PidsStats
	Block    []BlockIO // bytes
	BlockOps []BlockIO // operations
	Networks map[string]InterfaceStats
	Pressure Pressure
}

// Pressure is how long a container's tasks waited for what they need (the kernel's PSI); nil where it isn't counted.
type Pressure struct{ CPU, Memory, IO *cgroup.PSI }

// CPUStats is processor time. System is the host's total, for percentages.
type CPUStats struct {
	Total, Kernel, User, System      uint64
	PerCPU                           []uint64
	Online                           uint32
	Periods, Throttled, ThrottledFor uint64
}

// MemoryStats is memory in bytes; Detail is the controller's memory.stat.
type MemoryStats struct {
	Usage, MaxUsage, Limit, Failcnt uint64
	Detail                          map[string]uint64
}

// PidsStats counts tasks; Limit 0 is unlimited.
type PidsStats struct{ Current, Limit uint64 }

// BlockIO counts what was moved to and from one device. Op is Read or Write.
type BlockIO struct {
	Major, Minor uint64
	Op           string
	Count        uint64
}

// InterfaceStats counts a network interface's traffic.
type InterfaceStats struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Subnet is an address range of a network.
type Subnet struct {
	Subnet, Range netip.Prefix
	Gateway       netip.Addr
	Aux           map[string]netip.Addr
}

// NetworkSpec asks for a network.
type NetworkSpec struct {
	Name, Driver               string
	Internal, Attachable, IPv6 bool
	Subnets                    []Subnet
	Options, Labels            map[string]string
}

// NetworkInfo is a network and who is on it, by container id.
type NetworkInfo struct {
	NetworkSpec
	ID         string
	Created    time.Time
	Containers map[string]NetworkMember
}

// NetworkMember is a container on a network.
type NetworkMember struct {
	Name string
	Endpoint
}

// SystemInfo is what the engine knows about itself.
type SystemInfo struct {
	Containers, Running, Paused, Stopped, Images int
	Root, CgroupVersion, KernelVersion, OS       string
	Apparmor                                     bool // whether containers are confined by it
	Architecture                                 string
	CPUs                                         int
	Memory                                       int64
	Runtimes                                     map[string]Runtime
	DefaultRuntime                               string
	InstanceID                                   string
	Labels                                       []string
}

// Usage is the disk's use.
type Usage struct {
	Images     []Image
	Containers []Info
	Volumes    []VolumeUsage
	LayersSize int64
}

// VolumeUsage is a volume with its size and the number of containers that name it.
type VolumeUsage struct {
	Volume
	Size int64
	Refs int
}
