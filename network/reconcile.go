package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"cale/network/nft"
	"cale/network/rtnl"
)

// Reconcile brings disk and kernel together after a restart: endpoints of
// containers that are not alive go, links and rules that belong to nobody go,
// and what is missing of the living ones is made again. alive is asked once
// for each container and must not call the store.
func (s *Store) Reconcile(ctx context.Context, alive func(id string) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	links, err := s.route.Links()
	if err != nil {
		return fmt.Errorf("list network devices: %w", err)
	}
	byName := map[string]rtnl.Link{}
	for _, l := range links {
		byName[l.Name] = l
	}
	var errs []error
	answer := map[string]bool{}
	for id := range s.containers {
		answer[id] = alive(id)
	}
	// First the dead: their addresses and ports must be free for what follows.
	for id, list := range s.containers {
		if answer[id] {
			continue
		}
		for _, e := range slices.Clone(list) {
			errs = append(errs, s.forget(s.nets[e.NetworkID], e))
		}
	}
	known := map[string]bool{}
	for _, list := range s.containers {
		for _, e := range list {
			known[e.HostLink] = true
			for _, p := range e.Ports {
				s.ports.release(e.ID, p.HostIP, portKey{p.Protocol, p.HostPort})
				if err := s.ports.restore(e.ID, p); err != nil {
					s.warn("port %d/%s of %s is no longer kept from other programs on %s: %v", p.HostPort, p.Protocol, e.ID, p.HostIP, err)
				}
			}
		}
	}
	errs = append(errs, s.sweep(links, known)...)
	s.watchFilter()
	for _, n := range s.nets {
		_, exists := byName[n.def.Bridge]
		if len(n.endpoints) == 0 && !exists {
			continue
		}
		if err := s.up(n); err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", n.def.Name, err))
			continue
		}
		if !n.def.child() {
			s.admit(n)
		}
		for _, e := range n.endpoints {
			if err := s.repair(n, e, byName[e.HostLink]); err != nil {
				errs = append(errs, fmt.Errorf("repair %.12s on network %s: %w", e.Container, n.def.Name, err))
			}
			s.startProxies(e)
		}
	}
	// The table may hold ports of the dead: write it anew, or take it away if
	// there is nothing to write.
	if s.anyUp() {
		errs = append(errs, s.syncTable())
	} else if tables, err := nft.Tables(s.filter); err == nil && slices.Contains(tables, s.cfg.Name) {
		errs = append(errs, s.dropTable())
	}
	return errors.Join(errs...)
}

func (s *Store) anyUp() bool {
	for _, n := range s.nets {
		if n.index != 0 && !n.def.child() {
			return true
		}
	}
	return false
}

// sweep deletes links on our bridges that no lease names.
func (s *Store) sweep(links []rtnl.Link, known map[string]bool) []error {
	ours := map[int]bool{}
	for _, l := range links {
		for _, n := range s.nets {
			if l.Kind == "bridge" && (l.Name == n.def.Bridge || isOverflow(l.Name, n.def.Bridge)) {
				ours[l.Index] = true
			}
		}
	}
	var errs []error
	for _, l := range links {
		if !ours[l.Master] || !isEndpointLink(l.Name) || known[l.Name] {
			continue
		}
		if err := s.route.Do(rtnl.DelLink(l.Name)); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("delete stale link %s: %w", l.Name, err))
		}
	}
	return errs
}

// repair makes a living container's interface again if it is gone.
func (s *Store) repair(n *network, e *Endpoint, link rtnl.Link) error {
	if link.Index != 0 {
		if link.Master == 0 {
			return s.route.Do(rtnl.SetMaster(link.Index, n.index), rtnl.SetUp(link.Index))
		}
		return nil
	}
	ns, err := openNamespace(e.NetNS)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return s.forget(n, e)
		}
		return err
	}
	defer unix.Close(ns)
	if n.def.child() {
		return s.repairChild(n, e, ns)
	}
	return s.connect(n, e, ns)
}

// Teardown removes bridges and rules if nothing is attached to any network.
// Definitions stay.
func (s *Store) Teardown() error {
	s.deleting.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.containers) > 0 {
		return fmt.Errorf("%d containers are attached to networks: %w", len(s.containers), ErrInUse)
	}
	links, err := s.route.Links()
	if err != nil {
		return fmt.Errorf("list network devices: %w", err)
	}
	var errs []error
	errs = append(errs, s.sweep(links, nil)...)
	for _, n := range s.nets {
		n.index, n.full, n.roomy = 0, nil, 0
		s.dns.stop(n)
		if n.def.child() {
			errs = append(errs, s.downChild(n))
			continue
		}
		for _, l := range links {
			if l.Kind != "bridge" || l.Name != n.def.Bridge && !isOverflow(l.Name, n.def.Bridge) {
				continue
			}
			if err := s.route.Do(rtnl.DelLink(l.Name)); err != nil && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("remove bridge %s: %w", l.Name, err))
			}
			errs = append(errs, s.dismiss(l.Name))
		}
	}
	errs = append(errs, s.dropTable())
	return errors.Join(errs...)
}
