package network

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Bridge is the name of the network a container joins unless it asks for
// another one. Host and None are listed beside it, but nothing is ever
// attached to them: they mean "the host's own namespace" and "only loopback".
const (
	Bridge = "bridge"
	Host   = "host"
	None   = "none"
)

// Error classes. An error of this package matches at most one of them with
// errors.Is; its text already names the object.
var (
	ErrNotFound  = errors.New("not found")
	ErrExists    = errors.New("already exists")
	ErrInUse     = errors.New("in use")
	ErrInvalid   = errors.New("invalid")
	ErrForbidden = errors.New("forbidden")
	ErrPortInUse = errors.New("port in use")
)

// PortMapping publishes one port, or one range of ports, of a container.
type PortMapping struct {
	// HostIP is the host's address that answers. The zero Addr means every
	// address of both families, 0.0.0.0 every IPv4 and :: every IPv6 one.
	HostIP netip.Addr `json:"host_ip"`
	// HostPort is the host's port; 0 lets the store choose one. With
	// HostPortEnd above HostPort and a single container port, the first free
	// port of the range is taken.
	HostPort    uint16 `json:"host_port"`
	HostPortEnd uint16 `json:"host_port_end,omitempty"`
	// ContainerPort is the port inside. ContainerPortEnd above it publishes a
	// range, which must be as long as the host's range if that has an end.
	ContainerPort    uint16 `json:"container_port"`
	ContainerPortEnd uint16 `json:"container_port_end,omitempty"`
	// Protocol is "tcp" (also when empty), "udp" or "sctp".
	Protocol string `json:"protocol"`
}

// Attach asks for an interface on a network inside a network namespace.
type Attach struct {
	ID      string // the container's or pod's ID
	Network string // name, ID or unique prefix of an ID; "" is Bridge
	NetNS   string // path of the pinned namespace

	Hostname string   // answered by the network's DNS besides Name and Aliases
	Name     string   // the container's name
	Aliases  []string // further names on this network
	// Links are names for others that this container alone knows: "name:alias".
	Links []string

	MAC  string     // "" chooses one
	IPv4 netip.Addr // zero chooses one
	IPv6 netip.Addr // zero chooses one

	// Ports are published on the network that leads the container out. They
	// are said with every network, as that may become another one.
	Ports []PortMapping
	// Priority decides which network that is: the one with the highest, and
	// among equals the first by name.
	Priority int

	// Interface names the device inside; "" takes the first free ethN.
	Interface string

	// Servers answer the names that the network's own DNS does not know;
	// empty means the host's.
	Servers []netip.Addr
}

// Endpoint is a container's interface on one network.
type Endpoint struct {
	ID        string `json:"id"` // of the endpoint, 64 hex digits
	Container string `json:"container"`
	Network   string `json:"network"`    // name
	NetworkID string `json:"network_id"` // 64 hex digits
	NetNS     string `json:"netns"`

	Interface string `json:"interface"`       // inside
	Index     int    `json:"index,omitempty"` // of that device, of macvlan and ipvlan
	HostLink  string `json:"host_link"`       // the other end, on the bridge
	MAC       string `json:"mac"`

	IPv4     netip.Prefix `json:"ipv4"`
	IPv6     netip.Prefix `json:"ipv6"`    // invalid when the network or the host has no IPv6
	Gateway  netip.Addr   `json:"gateway"` // invalid on an internal network
	Gateway6 netip.Addr   `json:"gateway6"`

	// Ports holds what is really published: one mapping for each port and
	// each host address, HostPort set, ends zero.
	Ports []PortMapping `json:"ports,omitempty"`
	// Want holds what is published when this endpoint leads out.
	Want     []PortMapping `json:"want,omitempty"`
	Priority int           `json:"priority,omitempty"`

	// DNS is the nameserver to write into the container's resolv.conf;
	// invalid means the host's own (see HostDNS).
	DNS netip.Addr `json:"dns"`

	Hostname string       `json:"hostname,omitempty"`
	Name     string       `json:"name,omitempty"`
	Aliases  []string     `json:"aliases,omitempty"`
	Links    []string     `json:"links,omitempty"`
	Servers  []netip.Addr `json:"servers,omitempty"`

	// Default is true on the one endpoint that holds the default route.
	Default bool `json:"default"`
	// Gated has the host's rules for incoming traffic hold for its ports.
	Gated bool `json:"gated,omitempty"`
}

// Definition describes a network. What a caller of Create leaves empty is
// chosen and filled in.
type Definition struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Driver   string            `json:"driver"` // "bridge"; "host" and "null" for the two listed ones
	Created  time.Time         `json:"created"`
	Internal bool              `json:"internal,omitempty"` // no way in or out
	Subnet   netip.Prefix      `json:"subnet"`
	Gateway  netip.Addr        `json:"gateway"`
	Range    netip.Prefix      `json:"range"` // addresses are chosen from here; zero means the whole subnet
	Subnet6  netip.Prefix      `json:"subnet6"`
	Gateway6 netip.Addr        `json:"gateway6"`
	Reserved []netip.Addr      `json:"reserved,omitempty"` // never given to a container
	NoIPv6   bool              `json:"no_ipv6,omitempty"`
	Options  map[string]string `json:"options,omitempty"` // kept and shown; com.docker.network.bridge.name, .enable_icc, .enable_ip_masquerade and com.docker.network.driver.mtu and cale.firewall work
	Labels   map[string]string `json:"labels,omitempty"`
	Bridge   string            `json:"bridge,omitempty"` // the host's device

	Parent    string `json:"parent,omitempty"`     // the host's device, of macvlan and ipvlan
	OwnParent bool   `json:"own_parent,omitempty"` // it is made for the network, and goes with it
}

// Info is a network and who is on it.
type Info struct {
	Definition
	Endpoints []*Endpoint
}

// PortError reports a host port that cannot be published. It matches
// ErrPortInUse.
type PortError struct {
	Addr     netip.AddrPort
	Protocol string
	// Other is true when a process outside of our containers holds the port.
	Other bool
}

func (e *PortError) Error() string {
	if e.Other {
		return fmt.Sprintf("failed to bind host port %s/%s: address already in use", e.Addr, e.Protocol)
	}
	return fmt.Sprintf("Bind for %s failed: port is already allocated", e.Addr)
}

// Is makes every PortError an ErrPortInUse.
func (e *PortError) Is(target error) bool { return target == ErrPortInUse }
