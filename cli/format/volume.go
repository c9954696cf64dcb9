package format

import (
	"fmt"
	"sort"

	"cale/client"
)

// Volume is a row of the list of volumes.
type Volume struct {
	Availability string
	Driver       string
	Group        string
	Labels       string
	Links        string
	Mountpoint   string
	Name         string
	Scope        string
	Size         string
	Status       string

	labels map[string]string
	header bool
}

// Label returns one label's value; as a heading, its last part.
func (v Volume) Label(name string) string {
	if v.header {
		return labelHeader(name)
	}
	return v.labels[name]
}

// VolumeHeader holds the headings.
var VolumeHeader = Volume{Availability: "AVAILABILITY", Driver: "DRIVER", Group: "GROUP", Labels: "LABELS", Links: "LINKS", Mountpoint: "MOUNTPOINT",
	Name: "VOLUME NAME", Scope: "SCOPE", Size: "SIZE", Status: "STATUS", header: true}

// VolumeTable is the usual table's template.
const VolumeTable = "table {{.Driver}}\t{{.Name}}"

// NewVolume makes a row.
func NewVolume(v client.Volume) Volume {
	r := Volume{Availability: "N/A", Driver: v.Driver, Group: "N/A", Labels: Labels(v.Labels), Links: "N/A", Mountpoint: v.Mountpoint, Name: v.Name,
		Scope: v.Scope, Size: "N/A", Status: "N/A", labels: v.Labels}
	if v.UsageData != nil {
		r.Links, r.Size = fmt.Sprint(v.UsageData.RefCount), size(v.UsageData.Size)
	}
	return r
}

// SortVolumes sorts by name.
func SortVolumes(rows []Volume) {
	sort.Slice(rows, func(i, j int) bool { return rows[i].Name < rows[j].Name })
}

// Network is a row of the list of networks.
type Network struct {
	CreatedAt string
	Driver    string
	ID        string
	IPv4      string
	IPv6      string
	Internal  string
	Labels    string
	Name      string
	Scope     string

	labels map[string]string
	header bool
}

// Label returns one label's value; as a heading, its last part.
func (n Network) Label(name string) string {
	if n.header {
		return labelHeader(name)
	}
	return n.labels[name]
}

// NetworkHeader holds the headings.
var NetworkHeader = Network{CreatedAt: "CREATED AT", Driver: "DRIVER", ID: "NETWORK ID", IPv4: "IPV4", IPv6: "IPV6", Internal: "INTERNAL",
	Labels: "LABELS", Name: "NAME", Scope: "SCOPE", header: true}

// NetworkTable is the usual table's template.
const NetworkTable = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"

// NewNetwork makes a row; full keeps the id whole.
func NewNetwork(n client.Network, full bool) Network {
	r := Network{CreatedAt: n.Created, Driver: n.Driver, ID: n.ID, IPv4: fmt.Sprint(n.EnableIPv4), IPv6: fmt.Sprint(n.EnableIPv6),
		Internal: fmt.Sprint(n.Internal), Labels: Labels(n.Labels), Name: n.Name, Scope: n.Scope, labels: n.Labels}
	if !full {
		r.ID = ShortID(n.ID)
	}
	return r
}

// SortNetworks sorts by name.
func SortNetworks(rows []Network) {
	sort.Slice(rows, func(i, j int) bool { return rows[i].Name < rows[j].Name })
}
