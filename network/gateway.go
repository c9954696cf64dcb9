package network

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

// A container on several networks has its default route, and its published
// ports, on one of them.

// gateway is the endpoint that leads a container out: the one with the highest
// priority, among equals the first by its network's name; nil if none does.
func (s *Store) gateway(id string) *Endpoint {
	var best *Endpoint
	for _, e := range s.containers[id] {
		if !e.Gateway.IsValid() {
			continue
		}
		if best == nil || e.Priority > best.Priority || e.Priority == best.Priority && e.Network < best.Network {
			best = e
		}
	}
	return best
}

// settleGateway moves the default route and the ports to the endpoint that
// should have them, if another one has.
func (s *Store) settleGateway(id string, ns int) error {
	best := s.gateway(id)
	if best == nil || best.Default {
		return nil
	}
	inside, err := rtnl.OpenIn(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	i := slices.IndexFunc(s.containers[id], func(e *Endpoint) bool { return e.Default })
	if i < 0 {
		return s.lead(best, nil, inside)
	}
	old := s.containers[id][i]
	ports := old.Ports
	if err := s.unpublish(old); err != nil {
		return err
	}
	old.Default = false
	if err := writeFile(s.leaseFile(old), old, false); err != nil {
		return fmt.Errorf("write lease: %w", err)
	}
	// A route may be gone already: the container has its say in its own namespace.
	inside.Do(rtnl.DelDefault(old.Gateway))
	if old.Gateway6.IsValid() {
		inside.Do(rtnl.DelDefault(old.Gateway6))
	}
	return s.lead(best, ports, inside)
}

// lead makes an endpoint the one that leads out. had is what was published
// elsewhere until now: ports that were chosen then are kept.
func (s *Store) lead(e *Endpoint, had []PortMapping, inside *rtnl.Conn) error {
	n := s.nets[e.NetworkID]
	msgs := []*rtnl.Message{rtnl.NewDefault(e.Gateway)}
	if e.Gateway6.IsValid() {
		msgs = append(msgs, rtnl.NewDefault(e.Gateway6))
	}
	if err := inside.Do(msgs...); err != nil {
		return fmt.Errorf("add default route by %s: %w", e.Gateway, err)
	}
	e.Default = true
	s.order(e.Container)
	if n.def.child() {
		return writeFile(s.leaseFile(e), e, false)
	}
	ports, err := s.ports.publish(e.ID, keepChosen(e.Want, had), n.v6 != nil)
	if err != nil {
		return err
	}
	e.Ports = ports
	if err := writeFile(s.leaseFile(e), e, false); err != nil {
		return fmt.Errorf("write lease: %w", err)
	}
	c := content{}
	c.endpoint(e)
	if len(c) > 0 {
		if err := s.changeTable(c, false); err != nil {
			return err
		}
	}
	s.startProxies(e)
	s.flushFlows(e)
	return nil
}

// keepChosen fills in the host ports that were chosen for mappings that left
// the choice to us.
func keepChosen(want, had []PortMapping) []PortMapping {
	out := slices.Clone(want)
	for i, m := range out {
		if m.HostPort != 0 && m.HostPortEnd <= m.HostPort || m.ContainerPortEnd > m.ContainerPort {
			continue
		}
		for _, h := range had {
			if h.ContainerPort == m.ContainerPort && h.Protocol == orTCP(m.Protocol) {
				out[i].HostPort, out[i].HostPortEnd = h.HostPort, 0
				break
			}
		}
	}
	return out
}

func orTCP(protocol string) string {
	if protocol == "" {
		return "tcp"
	}
	return protocol
}

// unpublish closes an endpoint's ports and gives them back.
func (s *Store) unpublish(e *Endpoint) error {
	c := content{}
	c.endpoint(e)
	if len(c) > 0 {
		if err := s.changeTable(c, true); err != nil {
			return err
		}
	}
	s.ports.releaseAll(e)
	s.flushFlows(e)
	e.Ports = nil
	return nil
}

// inherit passes what a disconnected endpoint had for the whole container,
// the default route, the ports and the way to a name server, on to those that
// are left. gone.Ports are those it had.
func (s *Store) inherit(gone *Endpoint) error {
	var route, names *Endpoint
	if gone.Default {
		route = s.gateway(gone.Container)
	}
	for _, e := range s.containers[gone.Container] {
		if names == nil && gone.DNS.IsValid() && e.DNS.IsValid() {
			names = e
		}
	}
	if route == nil && names == nil {
		return nil
	}
	ns, err := openNamespace(gone.NetNS)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	inside, err := rtnl.OpenIn(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	if !s.nets[gone.NetworkID].def.child() { // that one is gone already
		inside.Do(rtnl.DelLink(gone.Interface)) // its routes would be in the way
	}
	if route != nil {
		if err := s.lead(route, gone.Ports, inside); err != nil {
			return err
		}
	}
	if names == nil {
		return nil
	}
	l, err := inside.Link(names.Interface)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", names.Interface, err)
	}
	return s.dns.redirect(s.nets[names.NetworkID], names, ns, inside, l.Index)
}
