package network

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Republish makes want what a container publishes, on whichever of its
// networks leads out. Ports that are wanted before and after stay as they are,
// with the connections through them. After an error all is as it was. A
// container on no network is no error.
func (s *Store) Republish(ctx context.Context, id string, want []PortMapping) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var had []PortMapping
	for _, e := range s.containers[id] {
		if had = e.Want; slices.Equal(had, want) {
			continue
		}
		if e.Default && !s.nets[e.NetworkID].def.child() {
			if err := s.republish(e, want); err != nil {
				return err
			}
		}
		e.Want = slices.Clone(want)
		if err := writeFile(s.leaseFile(e), e, false); err != nil {
			e.Want = had
			return fmt.Errorf("write lease: %w", err)
		}
	}
	return nil
}

func (s *Store) republish(e *Endpoint, want []PortMapping) error {
	var added []PortMapping
	for _, m := range want {
		if !slices.Contains(e.Want, m) {
			added = append(added, m)
		}
	}
	var stay, gone []PortMapping
	for _, p := range e.Ports {
		if m, ok := asked(e.Want, p); ok && slices.Contains(want, m) {
			stay = append(stay, p)
		} else {
			gone = append(gone, p)
		}
	}
	for _, p := range gone { // first: a port may come back with another address
		s.ports.release(e.ID, p.HostIP, portKey{p.Protocol, p.HostPort})
	}
	undo := func(err error) error {
		for _, p := range gone {
			err = errors.Join(err, s.ports.restore(e.ID, p))
		}
		return err
	}
	fresh, err := s.ports.publish(e.ID, added, e.IPv6.IsValid())
	if err != nil {
		return undo(err)
	}
	before := e.Ports
	e.Ports = slices.Concat(stay, fresh)
	away, come := content{}, content{}
	away.endpoint(&Endpoint{IPv4: e.IPv4, IPv6: e.IPv6, Ports: gone, Gated: e.Gated})
	come.endpoint(&Endpoint{IPv4: e.IPv4, IPv6: e.IPv6, Ports: fresh, Gated: e.Gated})
	err = s.changeTable(away, true)
	if err == nil {
		err = s.changeTable(come, false)
	}
	if err != nil {
		s.ports.releaseAll(&Endpoint{ID: e.ID, Ports: fresh})
		e.Ports = before
		return undo(errors.Join(fmt.Errorf("publish ports of %.12s: %w", e.Container, err), s.syncTable()))
	}
	s.flushFlows(&Endpoint{Ports: slices.Concat(gone, fresh)})
	s.startProxies(e)
	return nil
}

// asked is the mapping that had a port published: of those that can have been,
// the one that says most of the host's side.
func asked(list []PortMapping, p PortMapping) (m PortMapping, ok bool) {
	least := math.MaxInt
	for _, o := range list {
		width := math.MaxUint16 // any port
		if o.HostPort != 0 {
			width = max(int(o.HostPortEnd)-int(o.HostPort), 0)
		}
		if width < least && o.covers(p) {
			m, ok, least = o, true, width
		}
	}
	return m, ok
}

// covers reports whether what is published can be of a mapping that was asked
// for.
func (m PortMapping) covers(p PortMapping) bool {
	if checkMapping(&m) != nil || p.Protocol != m.Protocol || p.ContainerPort < m.ContainerPort || p.ContainerPort > m.ContainerPortEnd {
		return false
	}
	if m.HostPort != 0 && (p.HostPort < m.HostPort || p.HostPort > m.HostPortEnd) {
		return false
	}
	return !m.HostIP.IsValid() && p.HostIP.IsUnspecified() || m.HostIP.Unmap().WithZone("") == p.HostIP
}
