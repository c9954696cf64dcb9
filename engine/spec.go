package engine

import (
	"encoding/json"
	"net/netip"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"cale/image"
)

// Spec is what a client asked a container to be: the client's own policy, never data from an image. Nil slices
// mean "not said" (the image's value, or the default, is taken); empty ones mean "none".
type Spec struct {
	Name     string // without a leading slash; "" lets the engine choose
	Image    string // the reference or id as the client gave it
	Platform string // "" is the host's

	Entrypoint, Cmd  []string
	Env              []string
	User, WorkingDir string
	Hostname, Domain string
	Labels           map[string]string
	StopSignal       string
	StopTimeout      *int // seconds; nil is 10, negative waits for ever
	TTY              bool
	OpenStdin        bool
	StdinOnce        bool    // stdin ends when the first attached client's does
	ConsoleSize      [2]uint // height, width; zero when unknown
	AttachStdin      bool
	AttachStdout     bool
	AttachStderr     bool
	Exposed          []Port // ports the client named beside those it publishes
	AnonymousVolumes []string
	Health           *Health
	OnUnhealthy      string // what happens to an unhealthy container: "" nothing, kill, restart, stop

	Network   Network
	Mounts    []Mount
	Tmpfs     map[string]string // path to mount options
	Resources Resources
	Security  Security
	Log       Log
	Restart   Restart

	AutoRemove  bool
	PublishAll  bool
	Init        bool
	Runtime     string // "" is our own; a name from the configuration, or a shim's or an OCI runtime's path
	ShmSize     int64  // bytes; 0 is 64 MiB
	Sysctls     map[string]string
	OOMScore    int
	Annotations map[string]string
	StorageOpt  map[string]string `json:",omitempty"` // size: the bound on what the container writes
	Umask       *uint32           `json:",omitempty"` // nil is the runtime's

	PidMode, IpcMode, UTSMode, CgroupnsMode, UsernsMode string
	VolumesFrom                                         []string
	CgroupParent                                        string

	Member *Member // nil: a pod of its own
}

// Port names a container's port.
type Port struct {
	Number   uint16
	Protocol string // tcp, udp or sctp
}

// Publish is a port of the container's made reachable through the host. HostPort 0 lets the network choose;
// HostPortEnd, when not 0, is the last of a range to choose from.
type Publish struct {
	Port
	HostIP      netip.Addr // the zero Addr is every address, IPv4 and IPv6
	HostPort    uint16
	HostPortEnd uint16
}

// Network says how a container meets the world.
type Network struct {
	Mode       string // "", default, bridge, none, host, container:<id>, or a user-defined network's name
	Publish    []Publish
	MAC        string
	IPv4, IPv6 netip.Addr
	Aliases    []string
	GwPriority int `json:",omitempty"`
	// Links are names for other containers, "container:alias": on the default network in the hosts file, on others in
	// what the network answers this container.
	Links      []string `json:",omitempty"`
	Interface  string   `json:",omitempty"` // "" is the first free ethN
	DNS        []string
	DNSSearch  []string
	DNSOptions []string
	ExtraHosts []string          // name:address; host-gateway as an address is the bridge's
	Others     []NetworkEndpoint // networks beyond the first
}

// NetworkEndpoint asks for a place on one more network.
type NetworkEndpoint struct {
	Network    string
	Aliases    []string
	Links      []string `json:",omitempty"` // as Network.Links
	IPv4, IPv6 netip.Addr
	MAC        string `json:",omitempty"`
	// GwPriority decides which network leads out: the highest, and among equals the first by name.
	GwPriority int    `json:",omitempty"`
	Interface  string `json:",omitempty"`
}

// Mount is a volume, a bind mount, a tmpfs, or an image's content.
type Mount struct {
	Type         string // bind, volume, tmpfs or image
	Source       string // a host path (bind) or a volume's name ("" makes an anonymous one)
	Target       string
	ReadOnly     bool
	Propagation  string
	NonRecursive bool
	// Short is a mount in Docker's short form as the client wrote it, "" where it was asked for in the long one.
	Short string `json:",omitempty"`
	// RecursiveReadOnly makes what is mounted below a read-only bind read-only too, where the kernel can
	// (ForceRecursive: or the container is refused).
	RecursiveReadOnly bool
	ForceRecursive    bool `json:",omitempty"`
	// MapOwners shows a bind's files in a user namespace with the owners that they have on the host, by number.
	MapOwners bool `json:",omitempty"`
	// BindOptions are further options of a bind: noexec, nodev, nosuid.
	BindOptions  []string `json:",omitempty"`
	CreateSource bool     // a bind's missing source is made as a directory (docker run -v)
	NoCopy       bool     // a new volume is not filled from the image
	Subpath      string
	Driver       string
	DriverOpts   map[string]string
	Labels       map[string]string
	TmpfsSize    int64
	TmpfsMode    uint32
	TmpfsOptions []string `json:",omitempty"` // exec or noexec
	// FromImage marks a VOLUME of the image: the engine sets it, no client can.
	FromImage bool `json:"fromImage,omitempty"`
	Anonymous bool `json:"anonymous,omitempty"`
	// Layers are those of an image that is mounted: the engine sets them.
	Layers []image.Digest `json:"layers,omitempty"`
}

// Resources are limits; zero values are "no limit" but where a pointer says otherwise.
type Resources struct {
	Memory, MemoryReservation, MemorySwap int64 // bytes; MemorySwap -1 is unlimited
	MemorySwappiness                      *int64
	NanoCPUs, CPUPeriod, CPUQuota         int64
	CPUShares                             int64
	CPURealtimePeriod, CPURealtimeRuntime int64
	CpusetCPUs, CpusetMems                string
	Pids                                  *int64 // nil or 0 or -1: unlimited
	BlkioWeight                           uint16
	BlkioWeightDevice                     []DeviceRate `json:",omitempty"`
	BlkioReadBps, BlkioWriteBps           []DeviceRate `json:",omitempty"`
	BlkioReadIOps, BlkioWriteIOps         []DeviceRate `json:",omitempty"`
	OOMKillDisable                        *bool
	Ulimits                               []Ulimit
	Devices                               []Device
	DeviceCgroupRules                     []string
	DeviceRequests                        []DeviceRequest `json:",omitempty"`
}

// DeviceRequest asks for devices that CDI describes: by their full names (Driver "cdi"), or for GPUs, by the names that
// their vendor gave them or by how many, -1 being all.
type DeviceRequest struct {
	Driver       string
	Count        int
	IDs          []string
	Capabilities [][]string
	Options      map[string]string
}

// DeviceRate is a weight, bytes or operations a second of the device that a path of the host's names.
type DeviceRate struct {
	Path string
	Rate uint64
}

// Ulimit is one resource limit, by its name without RLIMIT_ (nofile, nproc …).
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Device is a device of the host's given to the container.
type Device struct {
	Host, Container, Permissions string
}

// Security narrows or widens what a container may do.
type Security struct {
	Privileged  bool
	ReadOnly    bool
	CapAdd      []string
	CapDrop     []string
	NoNewPrivs  bool
	Seccomp     string // "" is the default profile, "unconfined", or a profile's JSON
	AppArmor    string
	Labels      []string // SELinux label options
	SystemPaths string   // "unconfined" lifts masked and read-only paths
	// WritableCgroups lets the container change its own control groups.
	WritableCgroups bool `json:",omitempty"`
	GroupAdd        []string
	MaskedPaths     []string // nil: the default set
	ReadonlyPaths   []string
}

// Log chooses where output goes: json-file (""), local, none.
type Log struct {
	Driver  string
	Options map[string]string
}

// Restart is a restart policy: "" or no, always, unless-stopped, on-failure.
type Restart struct {
	Name    string
	Retries int
}

// Health is a health check; Test is Docker's form (NONE | CMD … | CMD-SHELL …), nil takes the image's.
type Health struct {
	Test                                          []string
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
}

// Status is where a container is in its life.
type Status string

// The states, named as Docker names them.
const (
	Created    Status = "created"
	Running    Status = "running"
	Paused     Status = "paused"
	Restarting Status = "restarting"
	Removing   Status = "removing"
	Exited     Status = "exited"
	Dead       Status = "dead"
)

// Info is one moment's whole picture of a container: a copy, which the caller owns.
type Info struct {
	ID       string
	Name     string // without a slash
	Created  time.Time
	Spec     Spec
	ImageID  string // digest of the image's configuration
	ImageRef string // the name it was asked by
	Manifest *image.Descriptor
	Path     string // the first word of the command, and the rest
	Args     []string
	State    State
	Restarts int

	// What the image and the request came to together.
	Run Effective

	Mounts                                       []MountPoint
	Endpoints                                    map[string]Endpoint // by network
	LogPath, HostnamePath, HostsPath, ResolvPath string
	UpperDir, WorkDir                            string
	LowerDirs                                    []string
	MergedDir                                    string
	SizeRw, SizeRootFs                           *int64 // only when asked for
	Execs                                        []string
	Links                                        []string // "name of the other:alias", of the default network
	LinkedAs                                     []string // "name of the other/alias" for each link to this one; List tells
}

// Listed is the part of it that lists of pods' containers tell.
func (i *Info) Listed() MemberState {
	return MemberState{ID: i.ID, Created: i.Created, ImageID: i.ImageID, Member: i.Spec.Member, State: i.State}
}

// Effective is the merged configuration: the image's under the client's.
type Effective struct {
	Entrypoint, Cmd, Env []string
	User, WorkingDir     string
	Hostname             string
	Labels               map[string]string
	StopSignal           string
	Exposed              []Port
	Volumes              []string
	Health               *Health
	Shell, OnBuild       []string
}

// State is a container's state.
type State struct {
	Status     Status
	Pid        int
	ExitCode   int
	Error      string
	OOMKilled  bool
	StartedAt  time.Time
	FinishedAt time.Time
	Health     *HealthState
	// User is whose the process is or was, as its user namespace has it; nil if it was never started.
	User *specs.User `json:",omitempty"`
}

// HealthState is what the health checks have said.
type HealthState struct {
	Status        string // starting, healthy, unhealthy
	FailingStreak int
	Log           []HealthResult
}

// HealthResult is one check's outcome.
type HealthResult struct {
	Start, End time.Time
	ExitCode   int
	Output     string
}

// MountPoint is a mount as the container sees it.
type MountPoint struct {
	Type, Name, Source, Destination, Driver, Mode, Propagation string
	RW                                                         bool
}

// Endpoint is a container's place on a network.
type Endpoint struct {
	Network, NetworkID, EndpointID string
	MAC                            string
	IPv4, IPv6                     netip.Prefix
	Gateway, Gateway6              netip.Addr
	Aliases, Links                 []string
	GwPriority                     int
	AskedIPv4, AskedIPv6           netip.Addr // what the client wanted, if it said
	Published                      []Publish
}

// ExecSpec asks for one more process in a running container.
type ExecSpec struct {
	Cmd, Env         []string
	User, WorkingDir string
	TTY, Privileged  bool
	Stdin            bool
	Stdout, Stderr   bool
	DetachKeys       string
	ConsoleSize      [2]uint
}

// ExecInfo is an exec session's state.
type ExecInfo struct {
	ID, Container string
	Spec          ExecSpec
	Running       bool
	Started       bool
	ExitCode      *int
	Pid           int
}

// Event is something that happened, as Docker's events tell it.
type Event struct {
	Time       time.Time
	Type       string // container, pod, image, volume, network, daemon
	Action     string
	ID         string
	Attributes map[string]string
	// Pod is the pod that it is of, as it was then: it may be gone by the time somebody reads this. Nil is none.
	Pod *PodInfo
}

// Volume is a named store of files that outlives containers.
type Volume struct {
	Name, Driver, Mountpoint string
	Created                  time.Time
	Labels, Options          map[string]string
	Anonymous                bool
}

// Image is one image as listed.
type Image struct {
	ID                        string   // sha256:…
	Names                     []string // name:tag, familiar form
	Digests                   []string // name@digest
	Target                    string   // digest the names point at
	MediaType                 string
	TargetSize                int64
	Manifest                  image.Descriptor // of the platform that is described
	Created                   time.Time
	Size                      int64
	Shared                    int64 // how much of Size other images have too; only DiskUsage says
	Labels                    map[string]string
	Architecture, OS, Variant string
	Author, Comment           string
	Layers                    []string // diff ids
	Config                    Effective
	RawConfig                 json.RawMessage
	Containers                int
	Others                    bool // others than pods have given it a name, or have containers of it
}

// History is one step of an image's making.
type History struct {
	ID, CreatedBy, Comment string
	Created                time.Time
	Size                   int64
	Tags                   []string
}
