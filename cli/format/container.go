package format

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"cale/client"

	"github.com/docker/go-units"
)

// Container is a row of the list of containers.
type Container struct {
	Command      string
	CreatedAt    string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Ports        string
	RunningFor   string
	Size         string
	State        string
	Status       string

	labels map[string]string
	owner  string
	header bool
}

// Owner is whose container it is; as a heading, that.
func (c Container) Owner() string {
	if c.header {
		return "OWNER"
	}
	return c.owner
}

// Label returns one label's value; as a heading, its last part.
func (c Container) Label(name string) string {
	if c.header {
		return labelHeader(name)
	}
	return c.labels[name]
}

func labelHeader(name string) string {
	return strings.NewReplacer("-", " ", "_", " ").Replace(name[strings.LastIndexByte(name, '.')+1:])
}

// ContainerHeader holds the headings.
var ContainerHeader = Container{Command: "COMMAND", CreatedAt: "CREATED AT", ID: "CONTAINER ID", Image: "IMAGE", Labels: "LABELS",
	LocalVolumes: "LOCAL VOLUMES", Mounts: "MOUNTS", Names: "NAMES", Networks: "NETWORKS", Ports: "PORTS", RunningFor: "CREATED",
	Size: "SIZE", State: "STATE", Status: "STATUS", header: true}

// ContainerTable is the usual table's template; size and owner add columns.
func ContainerTable(size, owner bool) string {
	t := "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
	if size {
		t += "\t{{.Size}}"
	}
	if owner {
		t += "\t{{.Owner}}"
	}
	return t
}

// NewContainer makes a row; full keeps long values whole.
func NewContainer(c client.Container, full bool, now time.Time) Container {
	created := time.Unix(c.Created, 0)
	r := Container{
		CreatedAt: created.String(), Image: c.Image, Labels: Labels(c.Labels), labels: c.Labels, owner: c.Owner,
		Ports: Ports(c.Ports), RunningFor: units.HumanDuration(now.Sub(created)) + " ago",
		State: c.State, Status: c.Status, ID: c.ID, Command: strconv.Quote(c.Command),
	}
	if r.Image == "" {
		r.Image = "<no image>"
	}
	if !full {
		r.ID = ShortID(c.ID)
		r.Command = strconv.Quote(Ellipsis(c.Command, 20))
		if strings.HasPrefix(r.Image, "sha256:") {
			r.Image = ShortID(r.Image)
		} else if name, digest, ok := strings.Cut(r.Image, "@"); ok && digest != "" {
			r.Image = name
		}
	}
	var names []string
	for _, n := range c.Names {
		n = strings.TrimPrefix(n, "/")
		if full || !strings.Contains(n, "/") { // a link's name is container/alias
			names = append(names, n)
		}
	}
	r.Names = strings.Join(names, ",")
	r.Networks = strings.Join(sortedKeys(c.NetworkSettings.Networks), ",")
	var mounts []string
	local := 0
	for _, m := range c.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if !full {
			name = Ellipsis(name, 15)
		}
		if m.Driver == "local" {
			local++
		}
		mounts = append(mounts, name)
	}
	r.Mounts, r.LocalVolumes = strings.Join(mounts, ","), strconv.Itoa(local)
	r.Size = units.HumanSizeWithPrecision(float64(c.SizeRw), 3)
	if c.SizeRootFs > 0 {
		r.Size = fmt.Sprintf("%s (virtual %s)", r.Size, units.HumanSizeWithPrecision(float64(c.SizeRootFs), 3))
	}
	return r
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Labels is a map as key=value,….
func Labels(m map[string]string) string {
	parts := make([]string, 0, len(m))
	for _, k := range sortedKeys(m) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, ",")
}

// Ports is a container's ports as one cell; neighbours are put together as
// ranges (8000-8010->80-90/tcp).
func Ports(ports []client.Port) string {
	ports = append([]client.Port(nil), ports...)
	sort.Slice(ports, func(i, j int) bool {
		a, b := ports[i], ports[j]
		switch {
		case a.PrivatePort != b.PrivatePort:
			return a.PrivatePort < b.PrivatePort
		case a.IP != b.IP:
			return a.IP < b.IP
		case a.PublicPort != b.PublicPort:
			return a.PublicPort < b.PublicPort
		}
		return a.Type < b.Type
	})
	type run struct{ first, last client.Port }
	var runs []*run
	for _, p := range ports {
		joined := false
		for _, r := range runs {
			if r.last.IP != p.IP || r.last.Type != p.Type || r.last.PrivatePort+1 != p.PrivatePort {
				continue
			}
			if p.PublicPort == 0 && r.last.PublicPort == 0 || p.PublicPort != 0 && r.last.PublicPort != 0 && r.last.PublicPort+1 == p.PublicPort {
				r.last, joined = p, true
				break
			}
		}
		if !joined {
			runs = append(runs, &run{p, p})
		}
	}
	cells := make([]string, len(runs))
	for i, r := range runs {
		private, public := span(r.first.PrivatePort, r.last.PrivatePort), span(r.first.PublicPort, r.last.PublicPort)
		if r.first.PublicPort == 0 {
			cells[i] = private + "/" + r.first.Type
			continue
		}
		ip := r.first.IP
		if strings.Contains(ip, ":") {
			ip = "[" + ip + "]"
		}
		cells[i] = fmt.Sprintf("%s:%s->%s/%s", ip, public, private, r.first.Type)
	}
	return strings.Join(cells, ", ")
}

func span(a, b uint16) string {
	if a == b {
		return strconv.Itoa(int(a))
	}
	return fmt.Sprintf("%d-%d", a, b)
}
