package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cale/network/dns"
	"cale/network/rtnl"
)

// Networks of the drivers macvlan and ipvlan have no bridge. Each container has a device of its own on a device of the
// host's, the network's parent, and is one more machine on the network which that is on. It can't reach the host by it,
// the kernel sees to that, so nothing is published and names are answered inside of its own namespace.
const (
	Macvlan = "macvlan"
	IPvlan  = "ipvlan"
)

// Options of such networks; Docker's names.
const (
	optParent      = "parent"
	optMacvlanMode = "macvlan_mode"
	optIPvlanMode  = "ipvlan_mode"
	optIPvlanFlag  = "ipvlan_flag"
)

// <linux/if_link.h>
var (
	macvlanModes = map[string]uint32{"private": 1, "vepa": 2, "": 4, "bridge": 4, "passthru": 8}
	ipvlanModes  = map[string]uint16{"": 0, "l2": 0, "l3": 1, "l3s": 2}
	ipvlanFlags  = map[string]uint16{"": 0, "bridge": 0, "private": 1, "vepa": 2}
)

func (d *Definition) child() bool { return d.Driver == Macvlan || d.Driver == IPvlan }

// completeChild checks the options and settles the parent. One that is not there is made with the network if its name
// says how, DEVICE.VLAN; a network without one is among containers alone.
func (s *Store) completeChild(d *Definition) error {
	parent := d.Options[optParent]
	if parent == "" {
		d.Parent, d.OwnParent = "dm-"+d.ID[:12], true
		d.Internal = true
	} else if err := checkDevice(parent); err != nil {
		return err
	} else if parent == "lo" {
		return fmt.Errorf("%w parent: the loopback interface can't be the parent of a %s network", ErrInvalid, d.Driver)
	} else {
		d.Parent = parent
	}
	if parent != "" {
		_, err := s.route.Link(parent)
		if errors.Is(err, unix.ENODEV) {
			base, _, err2 := cutVLAN(parent)
			if err2 != nil {
				return fmt.Errorf("%w parent: there is no device %s, nor does the name say how to make it (DEVICE.VLAN)", ErrInvalid, parent)
			}
			d.OwnParent = true
			if _, err = s.route.Link(base); err != nil {
				return fmt.Errorf("%w parent: there is no device %s to make %s on", ErrInvalid, base, parent)
			}
		}
		if err != nil {
			return fmt.Errorf("look for %s: %w", parent, err)
		}
		d.OwnParent = d.OwnParent || s.inherits(parent, d.ID)
	}
	if _, ok := macvlanModes[d.Options[optMacvlanMode]]; !ok {
		return fmt.Errorf("%w %s %q: it can be bridge, private, vepa or passthru", ErrInvalid, optMacvlanMode, d.Options[optMacvlanMode])
	}
	if _, ok := ipvlanFlags[d.Options[optIPvlanFlag]]; !ok {
		return fmt.Errorf("%w %s %q: it can be bridge, private or vepa", ErrInvalid, optIPvlanFlag, d.Options[optIPvlanFlag])
	}
	mode, ok := ipvlanModes[d.Options[optIPvlanMode]]
	if !ok {
		return fmt.Errorf("%w %s %q: it can be l2, l3 or l3s", ErrInvalid, optIPvlanMode, d.Options[optIPvlanMode])
	}
	// In the kernel the mode is the parent's: another one would be forced upon who is there.
	for _, n := range s.nets {
		if d.Driver == IPvlan && n.def.Driver == IPvlan && n.def.Parent == d.Parent && ipvlanModes[n.def.Options[optIPvlanMode]] != mode {
			return fmt.Errorf("%w %s: network %s has another one on %s, and all on a device have the same", ErrInvalid, optIPvlanMode, n.def.Name, d.Parent)
		}
	}
	return nil
}

// cutVLAN reads a name DEVICE.VLAN.
func cutVLAN(name string) (base string, id uint16, err error) {
	base, text, ok := strings.Cut(name, ".")
	n, err := strconv.ParseUint(text, 10, 16)
	if !ok || base == "" || err != nil || n == 0 || n > 4094 {
		return "", 0, fmt.Errorf("%s is no name of a VLAN's device", name)
	}
	return base, uint16(n), nil
}

// upChild finds the parent, and makes it if it is the network's own.
func (s *Store) upChild(n *network) error {
	link, err := s.route.Link(n.def.Parent)
	if errors.Is(err, unix.ENODEV) && n.def.OwnParent {
		if err = s.makeParent(&n.def); err == nil {
			link, err = s.route.Link(n.def.Parent)
		}
	}
	if err != nil {
		return fmt.Errorf("device %s, the parent of network %s: %w", n.def.Parent, n.def.Name, err)
	}
	n.mtu, _ = strconv.Atoi(n.def.Options[optMTU])
	n.index = link.Index
	return nil
}

func (s *Store) makeParent(d *Definition) error {
	if d.Options[optParent] == "" {
		return s.route.Do(rtnl.NewDummy(d.Parent))
	}
	base, id, err := cutVLAN(d.Parent)
	if err != nil {
		return err
	}
	link, err := s.route.Link(base)
	if err != nil {
		return err
	}
	return s.route.Do(rtnl.NewVLAN(d.Parent, link.Index, id))
}

// inherits tells whether another network goes on with a parent that was made for one.
func (s *Store) inherits(parent, id string) bool {
	for _, n := range s.nets {
		if n.def.child() && n.def.ID != id && n.def.OwnParent && n.def.Parent == parent {
			return true
		}
	}
	return false
}

// removeChild is downChild for a network that goes for good: its parent stays if others have it too.
func (s *Store) removeChild(n *network) error {
	if s.inherits(n.def.Parent, n.def.ID) {
		n.index = 0
		return nil
	}
	return s.downChild(n)
}

// downChild takes away the parent that was made for the network.
func (s *Store) downChild(n *network) error {
	n.index = 0
	if !n.def.OwnParent {
		return nil
	}
	if err := s.route.Do(rtnl.DelLink(n.def.Parent)); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove device %s: %w", n.def.Parent, err)
	}
	return nil
}

// addChild makes the container's device, in its namespace.
func (s *Store) addChild(n *network, e *Endpoint, ns int) error {
	c := rtnl.Child{Name: e.Interface, Parent: n.index, MTU: n.mtu, NS: ns}
	var m *rtnl.Message
	if n.def.Driver == Macvlan {
		mac, err := net.ParseMAC(e.MAC)
		if err != nil {
			return err
		}
		m = rtnl.NewMacvlan(c, macvlanModes[n.def.Options[optMacvlanMode]], mac)
	} else {
		m = rtnl.NewIPvlan(c, ipvlanModes[n.def.Options[optIPvlanMode]], ipvlanFlags[n.def.Options[optIPvlanFlag]])
	}
	err := s.route.Do(m)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("the kernel has no %s devices: %w", n.def.Driver, err)
	}
	return err
}

// delChild takes a container's device away, if the container is still there.
func (s *Store) delChild(e *Endpoint) {
	s.dns.leave(e)
	if e.Index == 0 {
		return // it was never made
	}
	ns, err := openNamespace(e.NetNS)
	if err != nil {
		return // the device went with its namespace
	}
	defer unix.Close(ns)
	if inside, err := rtnl.OpenIn(ns); err == nil {
		defer inside.Close()
		// By index: the container may have given it another name.
		if err := inside.Do(rtnl.DelLinkIndex(e.Index)); err != nil && !errors.Is(err, unix.ENODEV) {
			s.warn("take %s of %.12s off network %s: %v", e.Interface, e.Container, e.Network, err)
		}
	}
}

// repairChild makes a living container's device again if it is gone, and answers names as before.
func (s *Store) repairChild(n *network, e *Endpoint, ns int) error {
	inside, err := rtnl.OpenIn(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	links, err := inside.Links()
	if err != nil {
		return err
	}
	// The container may have given it another name; without an index it was being made when the last engine was killed.
	i := slices.IndexFunc(links, func(l rtnl.Link) bool { return e.Index != 0 && l.Index == e.Index })
	if i < 0 {
		if e.Index == 0 {
			inside.Do(rtnl.DelLink(e.Interface))
		}
		return s.connect(n, e, ns)
	}
	if !e.DNS.IsValid() {
		return nil
	}
	return s.dns.redirect(n, e, ns, inside, e.Index)
}

// enter answers names inside of a container's namespace: it has no gateway of ours to ask.
func (d *names) enter(e *Endpoint, ns int) (udp, tcp netip.AddrPort, err error) {
	d.leave(e)
	var server *dns.Server
	err = rtnl.In(ns, func() (err error) {
		server, err = dns.Listen(resolverAddr, zone{store: d.store, network: e.NetworkID, container: e.Container})
		return err
	})
	if err != nil {
		return udp, tcp, err
	}
	d.inside[e.ID] = server
	u, t := server.Ports()
	return netip.AddrPortFrom(resolverAddr, u), netip.AddrPortFrom(resolverAddr, t), nil
}

func (d *names) leave(e *Endpoint) {
	if server := d.inside[e.ID]; server != nil {
		server.Close()
		delete(d.inside, e.ID)
	}
}
