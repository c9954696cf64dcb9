package client

import "encoding/json"

// Port is a container's port in a listing.
type Port struct {
	IP          string
	PrivatePort uint16
	PublicPort  uint16
	Type        string
}

// Container is one entry of the list of containers.
type Container struct {
	ID string `json:"Id"`
	// Owner is whose client made it; "" if that wasn't asked for.
	Owner      string
	Names      []string
	Image      string
	ImageID    string
	Command    string
	Created    int64
	Ports      []Port
	SizeRw     int64
	SizeRootFs int64
	Labels     map[string]string
	State      string
	Status     string
	// RestartCount is how often the container's policy has started it again.
	RestartCount int
	HostConfig   struct{ NetworkMode string }
	Mounts       []struct {
		Type, Name, Source, Destination, Driver string
	}
	NetworkSettings struct {
		Networks map[string]*EndpointSettings
	}
}

// ContainerDetail is the part of a container's inspection that steers the
// command line.
type ContainerDetail struct {
	ID     string `json:"Id"`
	Name   string
	Image  string
	Config struct {
		Image        string
		Tty          bool
		OpenStdin    bool
		AttachStdin  bool
		AttachStdout bool
		AttachStderr bool
		Labels       map[string]string
	}
	State struct {
		Status     string
		Running    bool
		Paused     bool
		Restarting bool
		ExitCode   int
		Error      string
	}
	HostConfig struct {
		AutoRemove bool
		LogConfig  LogConfig
	}
	NetworkSettings struct {
		Ports map[string][]PortBinding
	}
}

// Image is one entry of the list of images.
type Image struct {
	ID          string `json:"Id"`
	ParentID    string `json:"ParentId"`
	RepoTags    []string
	RepoDigests []string
	Created     int64
	Size        int64
	SharedSize  int64
	Containers  int64
	Labels      map[string]string
}

// ImageHistory is one step of an image's history.
type ImageHistory struct {
	ID        string `json:"Id"`
	Created   int64
	CreatedBy string
	Tags      []string
	Size      int64
	Comment   string
}

// Deleted is one result of an image's removal.
type Deleted struct {
	Untagged string `json:",omitempty"`
	Deleted  string `json:",omitempty"`
}

// Volume is a volume.
type Volume struct {
	Name       string
	Driver     string
	Mountpoint string
	CreatedAt  string
	Scope      string
	Labels     map[string]string
	Options    map[string]string
	UsageData  *struct {
		Size     int64
		RefCount int64
	}
}

// Network is a network.
type Network struct {
	Name       string
	ID         string `json:"Id"`
	Created    string
	Scope      string
	Driver     string
	EnableIPv4 bool
	EnableIPv6 bool
	Internal   bool
	Attachable bool
	Labels     map[string]string
	Options    map[string]string
	IPAM       IPAM
}

// NetworkCreate is a request for a network.
type NetworkCreate struct {
	Name       string
	Driver     string
	Scope      string `json:",omitempty"`
	EnableIPv4 *bool  `json:",omitempty"`
	EnableIPv6 *bool  `json:",omitempty"`
	IPAM       *IPAM  `json:",omitempty"`
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigOnly bool
	Options    map[string]string
	Labels     map[string]string
}

// IPAM is a network's address management.
type IPAM struct {
	Driver  string
	Options map[string]string
	Config  []IPAMPool
}

// IPAMPool is one subnet.
type IPAMPool struct {
	Subnet       string            `json:",omitempty"`
	IPRange      string            `json:",omitempty"`
	Gateway      string            `json:",omitempty"`
	AuxAddresses map[string]string `json:"AuxiliaryAddresses,omitempty"`
}

// ExecConfig is a process to start in a running container.
type ExecConfig struct {
	User         string
	Privileged   bool
	Tty          bool
	ConsoleSize  *[2]uint `json:",omitempty"`
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	Detach       bool   `json:",omitempty"`
	DetachKeys   string `json:",omitempty"`
	Env          []string
	WorkingDir   string
	Cmd          []string
}

// ExecState is the state of such a process.
type ExecState struct {
	ID       string
	Running  bool
	ExitCode int
	Pid      int
}

// Exit is the end of a container as the engine reports it to a waiter.
type Exit struct {
	StatusCode int64
	Error      *struct{ Message string }
}

// Event is something that happened in the engine.
type Event struct {
	Type     string
	Action   string
	Actor    Actor
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`
}

// Actor is the object of an event.
type Actor struct {
	ID         string
	Attributes map[string]string
}

// Progress is one message of a pull, push, load or import.
type Progress struct {
	Stream         string          `json:"stream,omitempty"`
	Status         string          `json:"status,omitempty"`
	ID             string          `json:"id,omitempty"`
	ProgressDetail *ProgressDetail `json:"progressDetail,omitempty"`
	Error          *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errorDetail,omitempty"`
	ErrorText string          `json:"error,omitempty"`
	Aux       json.RawMessage `json:"aux,omitempty"`
}

// ProgressDetail counts; units are bytes unless Units says otherwise.
type ProgressDetail struct {
	Current    int64  `json:"current"`
	Total      int64  `json:"total"`
	HideCounts bool   `json:"hidecounts,omitempty"`
	Units      string `json:"units,omitempty"`
}
