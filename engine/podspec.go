package engine

import (
	"net/netip"
	"time"
)

// PodSpec is what a client asked a pod of many containers to be: what its containers share. A container without a
// pod is a pod of its own, described by its Spec alone.
type PodSpec struct {
	Hostname string // "" is the id's first characters, or the host's with the host's network

	HostNetwork, HostIPC, HostPID bool
	SharePID                      bool // the pod has one pid namespace for all
	// User is the mapping of a user namespace of the pod's own; nil is the host's.
	User *IDMap

	Publish    []Publish
	DNS        []string
	DNSSearch  []string
	DNSOptions []string

	// NetworkArgs and NetworkOffers are for plug-ins of the Container Network Interface: what they are told of the pod,
	// and the runtime's arguments by capability.
	NetworkArgs   map[string]string
	NetworkOffers map[string]any

	Sysctls      map[string]string
	CgroupParent string // where the containers' groups are; "" makes one for the pod below the engine's
	ShmSize      int64  // bytes; 0 is 64 MiB
	Runtime      string // as Spec.Runtime

	// Meta is what the client's protocol keeps with the pod. The engine never reads it.
	Meta []byte
}

// PodState is what lists tell of a pod.
type PodState struct {
	ID      string
	Created time.Time
	Spec    *PodSpec // shared by all that tell of the pod: not to be changed
	Ready   bool     // its namespaces are there: containers may be started
}

// MemberState is what lists tell of a pod's container: a small part of Info.
type MemberState struct {
	ID      string
	Created time.Time
	ImageID string  // digest of the image's configuration
	Member  *Member // shared by all that tell of the container: not to be changed
	State   State
}

// PodInfo is one moment's picture of a pod.
type PodInfo struct {
	PodState
	// NetNS is the pinned network namespace, "" for the host's. IPs are the pod's own addresses.
	NetNS string
	IPs   []netip.Addr
	Pid   int // of the process that holds a shared pid namespace, or 0
	// CgroupParent is the group that the containers' groups are in.
	CgroupParent string
}

// Member says how a container is part of a pod of many.
type Member struct {
	Pod string // the pod's id
	// Owner says to people what it is of whom, as namespace/pod/container.
	Owner string
	// LogPath is where output goes in the CRI's format; "" is nowhere.
	LogPath string
	// StrictGroups leaves out the groups that the image's files give the user.
	StrictGroups bool
	// Unified are settings of cgroup v2 by file name; HugepageLimits are bytes by page size as the kernel names it.
	Unified        map[string]string
	HugepageLimits map[string]uint64
	// AmbientCaps are capabilities that programs keep over an execve without being root.
	AmbientCaps []string
	// Edits are what programs of the node change in the container.
	Edits *Edits
	// RootPropagation is the rootfs propagation that shared and slave mounts need: "", rslave or rshared.
	RootPropagation string
	// Meta is what the client's protocol keeps with the container. The engine never reads it.
	Meta []byte
}
