package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

// Attach gives the namespace an interface on a network. Attaching what is
// already attached returns the same endpoint.
func (s *Store) Attach(ctx context.Context, a Attach) (*Endpoint, error) {
	if err := checkContainer(a.ID); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(a.Network)
	if err != nil {
		return nil, err
	}
	if e := n.endpoints[a.ID]; e != nil {
		if e.NetNS == a.NetNS {
			return e.clone(), nil
		}
		return nil, fmt.Errorf("endpoint of %s in network %s %w", a.ID, n.def.Name, ErrExists)
	}
	ns, err := openNamespace(a.NetNS)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ns)
	e, err := s.attach(n, a, ns)
	if err != nil {
		return nil, fmt.Errorf("attach %.12s to network %s: %w", a.ID, n.def.Name, err)
	}
	if err := s.settleGateway(a.ID, ns); err != nil {
		return nil, errors.Join(fmt.Errorf("attach %.12s to network %s: %w", a.ID, n.def.Name, err), s.detach(e))
	}
	return e.clone(), nil
}

func (s *Store) attach(n *network, a Attach, ns int) (_ *Endpoint, err error) {
	if err := s.up(n); err != nil {
		return nil, err
	}
	if !n.def.child() {
		s.watchFilter()
		s.admit(n)
	}
	e, err := s.lease(n, a)
	if err != nil {
		return nil, err
	}
	// From here on the lease is on disk: whatever happens, somebody knows whom
	// the pieces belong to.
	defer func() {
		if err != nil {
			if n.def.child() {
				s.delChild(e)
			} else {
				s.route.Do(rtnl.DelLink(e.HostLink))
			}
			s.forget(n, e)
		}
	}()
	if err := s.connect(n, e, ns); err != nil {
		return nil, err
	}
	if n.def.child() {
		return e, nil
	}
	c := content{}
	c.endpoint(e)
	if err := s.changeTable(c, false); err != nil {
		return nil, err
	}
	s.startProxies(e)
	s.flushFlows(e)
	return e, nil
}

// lease chooses everything the endpoint has, books it and writes it down.
func (s *Store) lease(n *network, a Attach) (_ *Endpoint, err error) {
	id := make([]byte, 32)
	rand.Read(id)
	e := &Endpoint{
		ID: hex.EncodeToString(id), Container: a.ID, Network: n.def.Name, NetworkID: n.def.ID, NetNS: a.NetNS,
		Hostname: a.Hostname, Name: a.Name, Aliases: a.Aliases, Links: a.Links, Servers: a.Servers, Interface: a.Interface,
		Want: a.Ports, Priority: a.Priority, Gated: s.gated(n),
	}
	if !n.def.child() {
		e.HostLink = linkPrefix + e.ID[:12]
	}
	if e.Interface == "" {
		e.Interface = s.freeInterface(a.ID)
	} else if err := checkDevice(e.Interface); err != nil {
		return nil, err
	}
	booked := false
	defer func() {
		if err != nil && booked {
			s.forget(n, e)
		}
	}()
	v4, err := n.v4.take(a.IPv4)
	if err != nil {
		return nil, err
	}
	e.IPv4 = netip.PrefixFrom(v4, n.def.Subnet.Bits())
	if n.v6 != nil {
		v6, err := n.v6.take(a.IPv6)
		if err != nil {
			n.v4.give(v4)
			return nil, err
		}
		e.IPv6 = netip.PrefixFrom(v6, n.def.Subnet6.Bits())
	} else if a.IPv6.IsValid() {
		n.v4.give(v4)
		return nil, fmt.Errorf("%w address %s: the network has no IPv6", ErrInvalid, a.IPv6)
	}
	s.insert(n, e)
	booked = true
	if e.MAC, err = chooseMAC(a.MAC, v4); err != nil {
		return nil, err
	}
	if !n.def.Internal {
		e.Gateway = n.def.Gateway
		if n.v6 != nil {
			e.Gateway6 = n.def.Gateway6
		}
		if e.Default = !s.hasDefault(a.ID); e.Default && !n.def.child() {
			ports, err := s.ports.publish(e.ID, a.Ports, n.v6 != nil)
			if err != nil {
				return nil, err
			}
			e.Ports = ports
		}
	}
	if n.def.child() || n.def.Name != Bridge && s.dns.serves(n) {
		e.DNS = resolverAddr
	}
	if err := writeFile(s.leaseFile(e), e, false); err != nil {
		return nil, fmt.Errorf("write lease: %w", err)
	}
	return e, nil
}

// chooseMAC follows the address: a container that gets an address somebody
// else has had gets the same MAC, so nobody's neighbour cache is wrong.
func chooseMAC(want string, v4 netip.Addr) (string, error) {
	if want == "" {
		b := v4.As4()
		return net.HardwareAddr(append([]byte{0x02, 0x42}, b[:]...)).String(), nil
	}
	mac, err := net.ParseMAC(want)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return "", fmt.Errorf("%w MAC address %q", ErrInvalid, want)
	}
	return mac.String(), nil
}

// connect makes the pair, the addresses and the routes. The namespace is
// entered once, for a socket; all else goes by netlink.
func (s *Store) connect(n *network, e *Endpoint, ns int) error {
	add := s.addPair
	if n.def.child() {
		add = s.addChild
	}
	if err := add(n, e, ns); err != nil {
		return fmt.Errorf("make interface %s: %w", e.Interface, err)
	}
	inside, err := rtnl.OpenIn(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	link, err := inside.Link(e.Interface)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", e.Interface, err)
	}
	if n.def.child() {
		e.MAC, e.Index = link.MAC.String(), link.Index // ipvlan has its parent's address
		if err := writeFile(s.leaseFile(e), e, false); err != nil {
			return err
		}
	}
	if err := s.address(n, e, inside, link.Index); err != nil {
		return err
	}
	if !n.def.child() {
		if err := s.setPort(n, e); err != nil {
			return err
		}
	}
	if e.DNS.IsValid() {
		if err := s.dns.redirect(n, e, ns, inside, link.Index); err != nil {
			other := n.def.Gateway
			if n.def.child() {
				other = netip.Addr{}
			}
			s.warn("%v: names are asked elsewhere", err)
			e.DNS = other
			return writeFile(s.leaseFile(e), e, false)
		}
	}
	return nil
}

// addPair makes the container's pair on the bridge.
func (s *Store) addPair(n *network, e *Endpoint, ns int) error {
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return err
	}
	pair := rtnl.Veth{Name: e.HostLink, MTU: n.mtu, Peer: e.Interface, PeerMAC: mac, PeerNS: ns}
	err = s.addVeth(n, pair)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		// Somebody removed the bridge under us; make it again, once.
		n.index = 0
		if err = s.up(n); err == nil {
			err = s.addVeth(n, pair)
		}
	}
	return err
}

// address sends all that is to be set inside in one datagram, IPv6 last: a
// namespace that has it switched off leaves the container without.
func (s *Store) address(n *network, e *Endpoint, inside *rtnl.Conn, index int) error {
	msgs := []*rtnl.Message{rtnl.SetUp(index), rtnl.NewAddr(index, e.IPv4)}
	what := []string{"bring it up", "add address " + e.IPv4.String()}
	if e.Default {
		msgs = append(msgs, rtnl.NewDefault(e.Gateway))
		what = append(what, "add default route by "+e.Gateway.String())
	}
	first6 := len(msgs)
	if e.IPv6.IsValid() {
		msgs = append(msgs, rtnl.NewAddr(index, e.IPv6))
		if e.Default {
			msgs = append(msgs, rtnl.NewDefault(e.Gateway6))
		}
	}
	err := inside.Do(msgs...)
	var refused *rtnl.Error
	if errors.As(err, &refused) {
		if refused.Index >= first6 {
			s.dropIPv6(n, e)
			return nil
		}
		return fmt.Errorf("interface %s: %s: %w", e.Interface, what[refused.Index], err)
	}
	return err
}

// dropIPv6 takes the IPv6 address and the ports on it off an endpoint.
func (s *Store) dropIPv6(n *network, e *Endpoint) {
	if n.v6 != nil {
		n.v6.give(e.IPv6.Addr())
	}
	e.IPv6, e.Gateway6 = netip.Prefix{}, netip.Addr{}
	var rest []PortMapping
	for _, p := range e.Ports {
		if p.HostIP.Is6() {
			s.ports.release(e.ID, p.HostIP, portKey{p.Protocol, p.HostPort})
			continue
		}
		rest = append(rest, p)
	}
	e.Ports = rest
	if err := writeFile(s.leaseFile(e), e, false); err != nil {
		s.warn("write lease: %v", err)
	}
}

// forget gives back what lease took. The lease's file goes last.
func (s *Store) forget(n *network, e *Endpoint) error {
	s.ports.releaseAll(e)
	s.strike(n, e)
	return removeFile(s.leaseFile(e))
}

// Detach takes a container off all its networks and frees its addresses and
// ports. A container that is on none is no error.
func (s *Store) Detach(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, e := range append([]*Endpoint(nil), s.containers[id]...) {
		errs = append(errs, s.detach(e))
	}
	return errors.Join(errs...)
}

// Disconnect takes a container off one network. If that one had the default
// route, the next network gets it.
func (s *Store) Disconnect(ctx context.Context, id, network string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(network)
	if err != nil {
		return err
	}
	e := n.endpoints[id]
	if e == nil {
		return fmt.Errorf("container %s is not connected to network %s: %w", id, n.def.Name, ErrNotFound)
	}
	ports := append([]PortMapping(nil), e.Ports...)
	if err := s.detach(e); err != nil {
		return err
	}
	e.Ports = ports
	return s.inherit(e)
}

func (s *Store) detach(e *Endpoint) error {
	n := s.nets[e.NetworkID]
	if n.def.child() {
		s.delChild(e)
		return s.forget(n, e)
	}
	c := content{}
	if n.index != 0 {
		c.endpoint(e)
	}
	ports := e.Ports
	s.ports.releaseAll(e)
	e.Ports = nil // so that a table written anew no longer has them
	if len(c) > 0 {
		if err := s.changeTable(c, true); err != nil {
			e.Ports = ports
			return fmt.Errorf("detach %.12s from network %s: %w", e.Container, n.def.Name, err)
		}
	}
	e.Ports = ports
	s.flushFlows(e)
	e.Ports = nil
	// The kernel takes a link away in tens of milliseconds, and Reconcile would
	// finish what a crash cuts short. Its address rests a while in the pool.
	s.deleting.Add(1)
	go func() {
		defer s.deleting.Done()
		s.trash.Do(rtnl.DelLink(e.HostLink))
	}()
	return s.forget(n, e)
}
