package network

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

// A bridge of Linux takes 1023 ports. When one is full, the next containers
// go on a further bridge that hangs on the first by a veth pair: to them it is
// the same network, and routing and filtering happen on the first as ever.

func overflowName(bridge string, i int) string {
	return fmt.Sprintf("%.12s.%d", bridge, i+1)
}

func isOverflow(name, bridge string) bool {
	i := strings.LastIndexByte(name, '.')
	return i > 0 && name[:i] == fmt.Sprintf("%.12s", bridge) && name != bridge
}

// adoptOverflow finds the further bridges that an earlier process made.
func (s *Store) adoptOverflow(n *network) error {
	n.full, n.roomy = nil, 0
	for {
		l, err := s.route.Link(overflowName(n.def.Bridge, len(n.full)))
		if errors.Is(err, unix.ENODEV) || err == nil && l.Kind != "bridge" {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look for further bridges of %s: %w", n.def.Bridge, err)
		}
		n.full = append(n.full, l.Index)
	}
}

// addVeth makes a container's pair on a bridge that has room. It starts with
// the one that had room last time: to be refused costs a pair.
func (s *Store) addVeth(n *network, v rtnl.Veth) error {
	try := []int{n.roomy}
	for i := 0; i <= len(n.full)+1; i++ {
		if i != n.roomy {
			try = append(try, i)
		}
	}
	var err error
	for _, i := range try {
		v.Master = n.index
		if i > 0 {
			if v.Master, err = s.overflow(n, i-1); err != nil {
				return err
			}
		}
		if err = s.route.Do(rtnl.NewVeth(v)); !errors.Is(err, unix.EXFULL) {
			n.roomy = i
			return err
		}
	}
	return err
}

// overflow returns the index of a network's i-th further bridge and makes it
// if it is not there.
func (s *Store) overflow(n *network, i int) (int, error) {
	if i < len(n.full) {
		return n.full[i], nil
	}
	if i > 98 {
		return 0, fmt.Errorf("network %s is full: %w", n.def.Name, unix.EXFULL)
	}
	name := overflowName(n.def.Bridge, i)
	link, err := s.route.Link(name)
	if errors.Is(err, unix.ENODEV) {
		sum := sha256.Sum256([]byte(n.def.ID + name))
		mac := append(net.HardwareAddr{0x02, 0x42}, sum[:4]...)
		if err = s.route.Do(rtnl.NewBridge(name, mac, n.mtu)); err == nil {
			link, err = s.route.Link(name)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("make bridge %s: %w", name, err)
	}
	if err := s.joinBridges(n, link.Index, i); err != nil {
		return 0, err
	}
	n.full = append(n.full, link.Index)
	c := content{} // under br_netfilter this bridge's own traffic meets the table as well
	c.bridge(n, name)
	return link.Index, s.changeTable(c, false)
}

// joinBridges connects a further bridge with the first. The first must spare
// a port for each, so one container's is moved if need be.
func (s *Store) joinBridges(n *network, index, i int) error {
	sum := sha256.Sum256([]byte(n.def.ID))
	up, down := fmt.Sprintf("vo%x.%d", sum[:4], i), fmt.Sprintf("vp%x.%d", sum[:4], i)
	if l, err := s.route.Link(up); err == nil && l.Master == n.index {
		return nil // left from before a restart
	}
	v := rtnl.Veth{Name: up, Master: n.index, MTU: n.mtu, Peer: down, PeerNS: -1}
	err := s.route.Do(rtnl.NewVeth(v))
	if errors.Is(err, unix.EXFULL) {
		if err = s.movePort(n.index, index); err == nil {
			err = s.route.Do(rtnl.NewVeth(v))
		}
	}
	if err != nil {
		return fmt.Errorf("join bridges of network %s: %w", n.def.Name, err)
	}
	peer, err := s.route.Link(down)
	if err == nil {
		err = s.route.Do(rtnl.SetMaster(peer.Index, index), rtnl.SetUp(peer.Index))
	}
	for _, name := range []string{up, down} {
		if err == nil {
			_, err = s.waitUp(name)
		}
	}
	if err != nil {
		s.route.Do(rtnl.DelLink(up))
		return fmt.Errorf("join bridges of network %s: %w", n.def.Name, err)
	}
	return nil
}

func (s *Store) movePort(from, to int) error {
	links, err := s.route.Links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Master == from && isEndpointLink(l.Name) {
			return s.route.Do(rtnl.SetMaster(l.Index, to))
		}
	}
	return unix.EXFULL
}
