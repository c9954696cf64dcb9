package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"cale/network"
)

func endpointOf(ep *network.Endpoint) Endpoint {
	out := Endpoint{Network: ep.Network, NetworkID: ep.NetworkID, EndpointID: ep.ID, MAC: ep.MAC, IPv4: ep.IPv4, IPv6: ep.IPv6,
		Gateway: ep.Gateway, Gateway6: ep.Gateway6, Aliases: ep.Aliases, Links: ep.Links, GwPriority: ep.Priority}
	for _, p := range ep.Ports {
		out.Published = append(out.Published, Publish{Port: Port{Number: p.ContainerPort, Protocol: p.Protocol}, HostIP: p.HostIP, HostPort: p.HostPort})
	}
	return out
}

// endpoints gives a container's places: those it has while it runs, or those it will have.
func (e *Engine) endpoints(rec *record) map[string]Endpoint {
	out := map[string]Endpoint{}
	n := &rec.Spec.Network
	own, joins := isOwn(n.Mode)
	switch {
	case n.Mode == "host" || own && !joins:
		ep := Endpoint{Network: n.Mode}
		if info, err := e.nets.Definition(n.Mode); err == nil {
			ep.NetworkID = info.ID
		}
		out[n.Mode] = ep
		return out
	case !own:
		return out
	}
	for _, ep := range e.nets.Endpoints(rec.ID) {
		out[ep.Network] = endpointOf(ep)
	}
	first := n.first()
	for _, o := range slices.Concat([]NetworkEndpoint{first}, n.Others, rec.Others) {
		info, err := e.nets.Definition(o.Network)
		if err != nil || slices.Contains(rec.Left, o.Network) {
			continue
		}
		ep, there := out[info.Name]
		if there {
			ep.AskedIPv4, ep.AskedIPv6 = o.IPv4, o.IPv6
			out[info.Name] = ep
		} else {
			out[info.Name] = Endpoint{AskedIPv4: o.IPv4, AskedIPv6: o.IPv6, Network: info.Name, NetworkID: info.ID, Aliases: o.Aliases, Links: o.Links, GwPriority: o.GwPriority, MAC: o.MAC}
		}
	}
	return out
}

func (e *Engine) networkInfo(i *network.Info) NetworkInfo {
	d := &i.Definition
	out := NetworkInfo{ID: d.ID, Created: d.Created, Containers: map[string]NetworkMember{},
		NetworkSpec: NetworkSpec{Name: d.Name, Driver: d.Driver, Internal: d.Internal, IPv6: d.Subnet6.IsValid(), Options: d.Options, Labels: d.Labels}}
	if d.Subnet.IsValid() {
		out.Subnets = append(out.Subnets, Subnet{Subnet: d.Subnet, Range: d.Range, Gateway: d.Gateway})
	}
	if d.Subnet6.IsValid() {
		out.Subnets = append(out.Subnets, Subnet{Subnet: d.Subnet6, Gateway: d.Gateway6})
	}
	for _, ep := range i.Endpoints {
		m := NetworkMember{Name: ep.Name, Endpoint: endpointOf(ep)}
		if c, err := e.find(ep.Container); err == nil {
			m.Name = c.name()
		}
		out.Containers[ep.Container] = m
	}
	if d.Name == network.Host || d.Name == network.None {
		for _, c := range e.all() {
			c.mu.Lock()
			if c.run != nil && c.rec.Spec.Network.Mode == d.Name {
				out.Containers[c.id] = NetworkMember{Name: c.rec.Name, Endpoint: Endpoint{Network: d.Name, NetworkID: d.ID}}
			}
			c.mu.Unlock()
		}
	}
	return out
}

// NetworkCreate makes a network.
func (e *Engine) NetworkCreate(ctx context.Context, s NetworkSpec) (id, warning string, err error) {
	defer e.begin()()
	switch s.Driver {
	case "", "default":
		s.Driver = "bridge"
	case "bridge", network.Macvlan, network.IPvlan:
	default:
		return "", "", notFound("plugin %q not found", s.Driver)
	}
	d := network.Definition{Name: s.Name, Driver: s.Driver, Internal: s.Internal, Options: s.Options, Labels: s.Labels, NoIPv6: !s.IPv6}
	for _, sub := range s.Subnets {
		if p := sub.Subnet; p.IsValid() && p != p.Masked() {
			return "", "", invalid("invalid subnet %s: it should be %s", p, p.Masked())
		}
		v6 := sub.Subnet.Addr().Is6() || !sub.Subnet.IsValid() && sub.Gateway.Is6()
		switch {
		case v6:
			d.Subnet6, d.Gateway6, d.NoIPv6 = sub.Subnet, sub.Gateway, false
		case d.Subnet.IsValid():
			return "", "", invalid("a %s network has one IPv4 subnet", s.Driver)
		default:
			d.Subnet, d.Gateway, d.Range = sub.Subnet, sub.Gateway, sub.Range
		}
		for _, name := range slices.Sorted(maps.Keys(sub.Aux)) {
			d.Reserved = append(d.Reserved, sub.Aux[name])
		}
	}
	made, err := e.nets.Create(ctx, d)
	if errors.Is(err, network.ErrExists) {
		return "", "", conflict("network with name %s already exists", s.Name)
	}
	if err != nil {
		return "", "", networkError(err)
	}
	e.emitOther("network", "create", made.ID, "name", made.Name, "type", made.Driver)
	return made.ID, "", nil
}

// Networks lists all networks.
func (e *Engine) Networks(ctx context.Context) ([]NetworkInfo, error) {
	var out []NetworkInfo
	for _, i := range e.nets.List() {
		out = append(out, e.networkInfo(i))
	}
	return out, nil
}

// NetworkInspect finds one by name, id, or unique prefix of an id.
func (e *Engine) NetworkInspect(ctx context.Context, ref string) (NetworkInfo, error) {
	i, err := e.nets.Inspect(ref)
	if err != nil {
		if errors.Is(err, network.ErrNotFound) {
			return NetworkInfo{}, notFound("network %s not found", ref)
		}
		return NetworkInfo{}, networkError(err)
	}
	return e.networkInfo(i), nil
}

// NetworkRemove removes a network nobody is on.
func (e *Engine) NetworkRemove(ctx context.Context, ref string) error {
	defer e.begin()()
	i, err := e.NetworkInspect(ctx, ref)
	if err != nil {
		return err
	}
	if i.Name == network.Bridge || i.Name == network.Host || i.Name == network.None {
		return fail(ErrForbidden, "%s is a pre-defined network and cannot be removed", i.Name)
	}
	if err := e.nets.Remove(ctx, i.ID); err != nil {
		if errors.Is(err, network.ErrInUse) {
			return fail(ErrForbidden, "error while removing network: network %s has active endpoints", i.Name)
		}
		return networkError(err)
	}
	e.emitOther("network", "destroy", i.ID, "name", i.Name, "type", i.Driver)
	return nil
}

// In Docker's words.
const (
	hostIsForLife = "container cannot be disconnected from host network or connected to host network"
	noneExcludes  = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
)

// NetworkConnect puts a container on one more network, now or when it starts.
func (e *Engine) NetworkConnect(ctx context.Context, ref, containerRef string, ep NetworkEndpoint) error {
	defer e.begin()()
	i, err := e.NetworkInspect(ctx, ref)
	if err != nil {
		return err
	}
	c, err := e.find(containerRef)
	if err != nil {
		return err
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	c.mu.Lock()
	rec, r := c.rec, c.run
	c.mu.Unlock()
	if own, joins := isOwn(rec.Spec.Network.Mode); !own {
		return conflict("container sharing network namespace with another container or host cannot be connected to any other network")
	} else if !joins {
		return conflict(noneExcludes)
	}
	switch i.Name {
	case "host":
		return conflict(hostIsForLife)
	case "none":
		return conflict(noneExcludes)
	}
	if _, there := e.endpoints(&rec)[i.Name]; there {
		return fail(ErrForbidden, "endpoint with name %s already exists in network %s", rec.Name, i.Name)
	}
	if err := checkEndpoint(i.Name, ep.Aliases, ep.IPv4, ep.IPv6); err != nil {
		return err
	}
	ep.Network = i.Name
	if r != nil {
		if _, err := e.attachOther(ctx, &rec, r.netns, ep); err != nil {
			return err
		}
		if err := e.writeEtc(c, &rec, e.nets.Endpoints(c.id)); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.rec.Left = slices.DeleteFunc(slices.Clone(c.rec.Left), func(n string) bool { return n == i.Name })
	if i.Name != networkName(rec.Spec.Network.Mode) {
		c.rec.Others = append(slices.Clone(c.rec.Others), ep)
	}
	err = c.save(c.keep())
	c.mu.Unlock()
	if r == nil {
		e.emitNetwork("connect", i.ID, i.Name, c.id)
	}
	return err
}

// NetworkDisconnect takes a container off a network.
func (e *Engine) NetworkDisconnect(ctx context.Context, ref, containerRef string, force bool) error {
	defer e.begin()()
	i, err := e.NetworkInspect(ctx, ref)
	if err != nil {
		return err
	}
	c, err := e.find(containerRef)
	if err != nil {
		if !force {
			return err
		}
		// An endpoint whose container is unknown: nothing but the endpoint is left.
		if err := e.nets.Disconnect(ctx, containerRef, i.ID); err != nil {
			return networkError(err)
		}
		return nil
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	c.mu.Lock()
	rec, r := c.rec, c.run
	c.mu.Unlock()
	if i.Name == "host" && rec.Spec.Network.Mode == "host" {
		return conflict(hostIsForLife)
	}
	if _, there := e.endpoints(&rec)[i.Name]; !there {
		return fail(ErrForbidden, "container %s is not connected to network %s", c.id, i.Name)
	}
	if r != nil {
		if err := e.nets.Disconnect(ctx, c.id, i.ID); err != nil {
			return networkError(err)
		}
		if err := e.writeEtc(c, &rec, e.nets.Endpoints(c.id)); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.rec.Others = slices.DeleteFunc(slices.Clone(c.rec.Others), func(o NetworkEndpoint) bool { return o.Network == i.Name })
	c.rec.Left = append(slices.Clone(c.rec.Left), i.Name)
	err = c.save(c.keep())
	c.mu.Unlock()
	e.emitNetwork("disconnect", i.ID, i.Name, c.id)
	return err
}

// PruneNetworks removes the networks no container names.
func (e *Engine) PruneNetworks(ctx context.Context, match func(NetworkInfo) bool) (Pruned, error) {
	defer e.begin()()
	used := map[string]bool{}
	for _, c := range e.all() {
		c.mu.Lock()
		rec := c.rec
		c.mu.Unlock()
		for name := range e.endpoints(&rec) {
			used[name] = true
		}
	}
	var p Pruned
	list, err := e.Networks(ctx)
	if err != nil {
		return p, err
	}
	for _, n := range list {
		if used[n.Name] || len(n.Containers) > 0 || match != nil && !match(n) {
			continue
		}
		switch err := e.NetworkRemove(ctx, n.ID); {
		case errors.Is(err, ErrForbidden), errors.Is(err, ErrNotFound):
		case err != nil:
			return p, fmt.Errorf("network %s: %w", n.Name, err)
		default:
			p.IDs = append(p.IDs, n.Name)
		}
	}
	return p, nil
}
