package docker

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"

	"cale/engine"
)

// networkAnswer is a network as listed and inspected.
type networkAnswer struct {
	ID              string `json:"Id"`
	Name            string
	Created         string
	Scope, Driver   string
	EnableIPv4      bool
	EnableIPv6      bool
	IPAM            network.IPAM
	Internal        bool
	Attachable      bool
	Ingress         bool
	ConfigFrom      network.ConfigReference
	ConfigOnly      bool
	Options, Labels map[string]string
	Containers      map[string]network.EndpointResource
	Status          *network.Status `json:",omitempty"`
}

func dockerNetwork(n engine.NetworkInfo, verbose bool) networkAnswer {
	out := networkAnswer{
		ID: n.ID, Name: n.Name, Created: stamp(n.Created), Scope: "local", Driver: n.Driver, EnableIPv4: true, EnableIPv6: n.IPv6,
		IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{}}, Internal: n.Internal, Attachable: n.Attachable,
		Options: orEmpty(n.Options), Labels: orEmpty(n.Labels), Containers: map[string]network.EndpointResource{},
	}
	for _, s := range n.Subnets {
		out.IPAM.Config = append(out.IPAM.Config, network.IPAMConfig{Subnet: s.Subnet, IPRange: s.Range, Gateway: s.Gateway, AuxAddress: s.Aux})
	}
	if verbose {
		for id, m := range n.Containers {
			e := network.EndpointResource{Name: m.Name, EndpointID: m.EndpointID, IPv4Address: m.IPv4, IPv6Address: m.IPv6}
			_ = e.MacAddress.UnmarshalText([]byte(m.MAC))
			out.Containers[id] = e
		}
	}
	return out
}

func builtinNetwork(name string) bool { return name == "bridge" || name == "host" || name == "none" }

func (s *Server) networkList(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r, "driver", "id", "name", "label", "label!", "scope", "type", "dangling")
	if err != nil {
		return err
	}
	dangling, set, err := f.flag("dangling")
	if err != nil {
		return err
	}
	all, err := s.engine.Networks(r.Context())
	if err != nil {
		return err
	}
	out := []any{}
	for _, n := range all {
		kind := "custom"
		if builtinNetwork(n.Name) {
			kind = "builtin"
		}
		if set && dangling != (len(n.Containers) == 0 && kind == "custom") || !f.labels(n.Labels) ||
			!f.match("driver", func(v string) bool { return v == n.Driver }) ||
			!f.match("id", func(v string) bool { return strings.HasPrefix(n.ID, v) }) ||
			!f.match("name", func(v string) bool { return nameMatches(v, n.Name) }) ||
			!f.match("scope", func(v string) bool { return v == "local" }) ||
			!f.match("type", func(v string) bool { return v == kind }) {
			continue
		}
		out = append(out, dockerNetwork(n, false))
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) networkInspect(w http.ResponseWriter, r *request) error {
	n, err := s.engine.NetworkInspect(r.Context(), r.name())
	if err != nil {
		return err
	}
	out := dockerNetwork(n, true)
	if !r.before("1.52") {
		out.Status = &network.Status{IPAM: network.IPAMStatus{Subnets: subnetStatus(&n)}}
	}
	return writeJSON(w, http.StatusOK, out)
}

// subnetStatus counts a network's addresses: those of containers, the gateway's and what is reserved, and in IPv4 the
// first and the last are in use.
func subnetStatus(n *engine.NetworkInfo) network.SubnetStatuses {
	out := network.SubnetStatuses{}
	for _, s := range n.Subnets {
		used := uint64(len(s.Aux))
		if s.Gateway.IsValid() {
			used++
		}
		if s.Subnet.Addr().Is4() {
			used += 2
		}
		for _, m := range n.Containers {
			if s.Subnet.Contains(m.IPv4.Addr()) || s.Subnet.Contains(m.IPv6.Addr()) {
				used++
			}
		}
		whole := s.Subnet
		if s.Range.IsValid() {
			whole = s.Range
		}
		size := uint64(math.MaxUint64)
		if bits := whole.Addr().BitLen() - whole.Bits(); bits < 64 {
			size = 1 << bits
		}
		out[s.Subnet] = network.SubnetStatus{IPsInUse: used, DynamicIPsAvailable: size - min(size, used)}
	}
	return out
}

func (s *Server) networkCreate(w http.ResponseWriter, r *request) error {
	var in network.CreateRequest
	if err := r.decode(&in); err != nil {
		return err
	}
	e := entryOf(r.Context())
	e.Object = in.Name
	switch {
	case in.ConfigOnly, in.ConfigFrom != nil && in.ConfigFrom.Network != "":
		return notBuilt{"a configuration-only network"}
	case in.Ingress, in.Scope != "" && in.Scope != "local":
		return notBuilt{"a swarm network"}
	case in.EnableIPv4 != nil && !*in.EnableIPv4:
		return notBuilt{"a network without IPv4"}
	}
	spec := engine.NetworkSpec{
		Name: in.Name, Driver: in.Driver, Internal: in.Internal, Attachable: in.Attachable,
		IPv6: in.EnableIPv6 != nil && *in.EnableIPv6, Options: in.Options, Labels: in.Labels,
	}
	if in.IPAM != nil {
		if in.IPAM.Driver != "" && in.IPAM.Driver != "default" {
			return notBuilt{"the address driver " + in.IPAM.Driver}
		}
		for _, c := range in.IPAM.Config {
			spec.Subnets = append(spec.Subnets, engine.Subnet{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress})
		}
	}
	id, warning, err := s.engine.NetworkCreate(r.Context(), spec)
	e.Made = id
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, network.CreateResponse{ID: id, Warning: warning})
}

func (s *Server) networkRemove(w http.ResponseWriter, r *request) error {
	return noContent(w, s.engine.NetworkRemove(r.detached(), r.name()))
}

func (s *Server) networkConnect(w http.ResponseWriter, r *request) error {
	var in network.ConnectRequest
	if err := r.decode(&in); err != nil {
		return err
	}
	entryOf(r.Context()).Object += " " + in.Container
	ep, err := toEndpoint(r.name(), in.EndpointConfig)
	if err != nil {
		return err
	}
	if err := s.engine.NetworkConnect(r.detached(), r.name(), in.Container, ep); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) networkDisconnect(w http.ResponseWriter, r *request) error {
	var in network.DisconnectRequest
	if err := r.decode(&in); err != nil {
		return err
	}
	entryOf(r.Context()).Object += " " + in.Container
	if err := s.engine.NetworkDisconnect(r.detached(), r.name(), in.Container, in.Force); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) networkPrune(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	until, err := f.until(time.Now())
	if err != nil {
		return err
	}
	p, err := s.engine.PruneNetworks(r.detached(), func(n engine.NetworkInfo) bool {
		return f.labels(n.Labels) && (until.IsZero() || n.Created.Before(until))
	})
	if err != nil {
		return err
	}
	slices.Sort(p.IDs)
	return writeJSON(w, http.StatusOK, network.PruneReport{NetworksDeleted: p.IDs})
}
