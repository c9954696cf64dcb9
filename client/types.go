package client

// The types below are the API's objects as far as the command line uses them;
// names are the API's. What is only shown to the user stays json.RawMessage.

// Config is the portable part of a container's configuration.
type Config struct {
	Hostname     string
	Domainname   string
	User         string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Env          []string
	Cmd          []string
	Healthcheck  *Healthcheck `json:",omitempty"`
	Image        string
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	MacAddress   string `json:",omitempty"`
	OnBuild      []string
	Labels       map[string]string
	StopSignal   string   `json:",omitempty"`
	StopTimeout  *int     `json:",omitempty"`
	Shell        []string `json:",omitempty"`
}

// Healthcheck is a container's health check; durations are nanoseconds.
type Healthcheck struct {
	Test          []string `json:",omitempty"`
	Interval      int64    `json:",omitempty"`
	Timeout       int64    `json:",omitempty"`
	StartPeriod   int64    `json:",omitempty"`
	StartInterval int64    `json:",omitempty"`
	Retries       int      `json:",omitempty"`
}

// HostConfig is the part of a container's configuration that depends on the
// host.
type HostConfig struct {
	Binds           []string
	ContainerIDFile string
	LogConfig       LogConfig
	NetworkMode     string
	PortBindings    map[string][]PortBinding
	RestartPolicy   RestartPolicy
	AutoRemove      bool
	VolumeDriver    string
	VolumesFrom     []string
	ConsoleSize     [2]uint
	Annotations     map[string]string `json:",omitempty"`
	CapAdd          []string
	CapDrop         []string
	CgroupnsMode    string
	DNS             []string `json:"Dns"`
	DNSOptions      []string `json:"DnsOptions"`
	DNSSearch       []string `json:"DnsSearch"`
	ExtraHosts      []string
	GroupAdd        []string
	IpcMode         string
	Cgroup          string
	Links           []string
	OomScoreAdj     int
	PidMode         string
	Privileged      bool
	PublishAllPorts bool
	ReadonlyRootfs  bool
	SecurityOpt     []string
	StorageOpt      map[string]string `json:",omitempty"`
	Tmpfs           map[string]string `json:",omitempty"`
	UTSMode         string
	UsernsMode      string
	ShmSize         int64
	Sysctls         map[string]string `json:",omitempty"`
	Runtime         string            `json:",omitempty"`
	Isolation       string
	Resources
	Mounts        []Mount  `json:",omitempty"`
	MaskedPaths   []string // null means the engine's default
	ReadonlyPaths []string
	Init          *bool `json:",omitempty"`
}

// Resources are a container's limits. Sizes are bytes.
type Resources struct {
	CPUShares            int64 `json:"CpuShares"`
	Memory               int64
	NanoCPUs             int64 `json:"NanoCpus"`
	CgroupParent         string
	BlkioWeight          uint16
	BlkioWeightDevice    []WeightDevice
	BlkioDeviceReadBps   []ThrottleDevice
	BlkioDeviceWriteBps  []ThrottleDevice
	BlkioDeviceReadIOps  []ThrottleDevice
	BlkioDeviceWriteIOps []ThrottleDevice
	CPUPeriod            int64 `json:"CpuPeriod"`
	CPUQuota             int64 `json:"CpuQuota"`
	CPURealtimePeriod    int64 `json:"CpuRealtimePeriod"`
	CPURealtimeRuntime   int64 `json:"CpuRealtimeRuntime"`
	CpusetCpus           string
	CpusetMems           string
	Devices              []Device
	DeviceCgroupRules    []string
	DeviceRequests       []DeviceRequest
	KernelMemory         int64 `json:",omitempty"`
	MemoryReservation    int64
	MemorySwap           int64
	MemorySwappiness     *int64
	OomKillDisable       *bool
	PidsLimit            *int64
	Ulimits              []Ulimit
	CPUCount             int64 `json:"CpuCount,omitempty"`
	CPUPercent           int64 `json:"CpuPercent,omitempty"`
	IOMaximumIOps        int64 `json:",omitempty"`
	IOMaximumBandwidth   int64 `json:",omitempty"`
}

// UpdateConfig is what can be changed on a container that exists.
type UpdateConfig struct {
	Resources
	RestartPolicy RestartPolicy
}

// LogConfig chooses the log driver.
type LogConfig struct {
	Type   string
	Config map[string]string
}

// PortBinding is the host's side of a published port.
type PortBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

// RestartPolicy says when the engine starts a container again.
type RestartPolicy struct {
	Name              string
	MaximumRetryCount int
}

// WeightDevice is a block device's relative weight.
type WeightDevice struct {
	Path   string
	Weight uint16
}

// ThrottleDevice is a block device's limit (bytes or operations a second).
type ThrottleDevice struct {
	Path string
	Rate uint64
}

// Device is a host's device in the container.
type Device struct {
	PathOnHost        string
	PathInContainer   string
	CgroupPermissions string
}

// DeviceRequest asks a device driver (GPU, CDI) for devices.
type DeviceRequest struct {
	Driver       string
	Count        int
	DeviceIDs    []string
	Capabilities [][]string
	Options      map[string]string
}

// Ulimit is one resource limit.
type Ulimit struct {
	Name string
	Hard int64
	Soft int64
}

// Mount is a mount in the long form.
type Mount struct {
	Type          string         `json:",omitempty"`
	Source        string         `json:",omitempty"`
	Target        string         `json:",omitempty"`
	ReadOnly      bool           `json:",omitempty"`
	Consistency   string         `json:",omitempty"`
	BindOptions   *BindOptions   `json:",omitempty"`
	VolumeOptions *VolumeOptions `json:",omitempty"`
	ImageOptions  *ImageOptions  `json:",omitempty"`
	TmpfsOptions  *TmpfsOptions  `json:",omitempty"`
}

// BindOptions are the options of a bind mount.
type BindOptions struct {
	Propagation            string `json:",omitempty"`
	NonRecursive           bool   `json:",omitempty"`
	CreateMountpoint       bool   `json:",omitempty"`
	ReadOnlyNonRecursive   bool   `json:",omitempty"`
	ReadOnlyForceRecursive bool   `json:",omitempty"`
}

// VolumeOptions are the options of a volume mount.
type VolumeOptions struct {
	NoCopy       bool              `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"`
	Subpath      string            `json:",omitempty"`
	DriverConfig *VolumeDriver     `json:",omitempty"`
}

// VolumeDriver is a volume's driver with its options.
type VolumeDriver struct {
	Name    string            `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
}

// ImageOptions are the options of an image mount.
type ImageOptions struct {
	Subpath string `json:",omitempty"`
}

// TmpfsOptions are the options of a tmpfs mount; Mode is the permission bits.
type TmpfsOptions struct {
	SizeBytes int64      `json:",omitempty"`
	Mode      uint32     `json:",omitempty"`
	Options   [][]string `json:",omitempty"`
}

// NetworkingConfig holds the networks a new container is attached to.
type NetworkingConfig struct {
	EndpointsConfig map[string]*EndpointSettings
}

// EndpointSettings is a container's place in one network.
type EndpointSettings struct {
	IPAMConfig *EndpointIPAM     `json:",omitempty"`
	Links      []string          `json:",omitempty"`
	Aliases    []string          `json:",omitempty"`
	MacAddress string            `json:",omitempty"`
	DriverOpts map[string]string `json:",omitempty"`
	GwPriority int               `json:",omitempty"`
	NetworkID  string            `json:",omitempty"`
	EndpointID string            `json:",omitempty"`
	Gateway    string            `json:",omitempty"`
	IPAddress  string            `json:",omitempty"`
}

// EndpointIPAM asks for addresses.
type EndpointIPAM struct {
	IPv4Address  string   `json:",omitempty"`
	IPv6Address  string   `json:",omitempty"`
	LinkLocalIPs []string `json:",omitempty"`
}
