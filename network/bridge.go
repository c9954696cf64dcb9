package network

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

// network is a definition with its addresses, and its bridge if that exists.
type network struct {
	def       Definition
	v4, v6    *pool                // v6 is nil without IPv6
	endpoints map[string]*Endpoint // by container
	index     int                  // of the bridge; 0 until it is known to be complete
	mtu       int                  // 0 for the kernel's default
	full      []int                // further bridges, see addVeth
	roomy     int                  // which bridge had room: 0 the first, i the i-th further one
}

// Options that change what a network does; Docker's names.
const (
	optBridge     = "com.docker.network.bridge.name"
	optICC        = "com.docker.network.bridge.enable_icc"
	optMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optMTU        = "com.docker.network.driver.mtu"
)

func (n *network) icc() bool { return n.def.Options[optICC] != "false" }
func (n *network) masquerade() bool {
	return n.def.Options[optMasquerade] != "false" && !n.def.Internal
}

func (n *network) pools() {
	n.v4 = newPool(n.def.Subnet, n.def.Range)
	n.v4.used[n.def.Gateway] = true
	for _, a := range n.def.Reserved {
		if a.Is4() {
			n.v4.used[a] = true
		}
	}
	n.v6 = nil
	if n.def.Subnet6.IsValid() {
		n.v6 = newPool(n.def.Subnet6, netip.Prefix{})
		n.v6.used[n.def.Gateway6] = true
		for _, a := range n.def.Reserved {
			if a.Is6() {
				n.v6.used[a] = true
			}
		}
	}
}

// up makes the bridge, its addresses and the table's entry for it. It repairs
// what is half there.
func (s *Store) up(n *network) error {
	if n.index != 0 {
		return nil
	}
	if n.def.child() {
		return s.upChild(n)
	}
	name := n.def.Bridge
	link, err := s.route.Link(name)
	exists := err == nil
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("look for bridge %s: %w", name, err)
	}
	if exists && link.Kind != "bridge" {
		return fmt.Errorf("%s exists and is no bridge: network %s cannot use it", name, n.def.Name)
	}
	if err := s.settle(n, exists); err != nil {
		return err
	}
	n.mtu = s.mtu(n)
	if !exists {
		sum := sha256.Sum256([]byte(n.def.ID))
		mac := append(net.HardwareAddr{0x02, 0x42}, sum[:4]...)
		if err := s.route.Do(rtnl.NewBridge(name, mac, n.mtu)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make bridge %s: %w", name, err)
		}
		if link, err = s.route.Link(name); err != nil {
			return fmt.Errorf("look for bridge %s: %w", name, err)
		}
	}
	// Containers reach the host's published ports on 127.0.0.1 only through
	// the host itself; see the guard chain.
	err = s.route.Do(rtnl.SetUp(link.Index),
		rtnl.NewAddr(link.Index, netip.PrefixFrom(n.def.Gateway, n.def.Subnet.Bits())),
		rtnl.RouteLocalnet(link.Index))
	if err != nil {
		return fmt.Errorf("set up bridge %s: %w", name, err)
	}
	if err := enableForwarding4(); err != nil && !n.def.Internal {
		return err
	}
	if n.v6 != nil && !s.up6(n, link.Index) {
		n.v6 = nil
	}
	n.index = link.Index
	if err := s.adoptOverflow(n); err != nil {
		return err
	}
	c := content{}
	c.network(n)
	if err := s.dns.serve(n); err != nil {
		s.warn("names on network %s are not answered: %v", n.def.Name, err)
	}
	s.dns.publish(n, c)
	if err := s.changeTable(c, false); err != nil {
		n.index = 0
		return err
	}
	return nil
}

// up6 gives the bridge its IPv6 address. A host without IPv6, or with IPv6
// switched off, has containers without.
func (s *Store) up6(n *network, index int) bool {
	conf := "/proc/sys/net/ipv6/conf/"
	if _, err := os.Stat(conf); err != nil {
		return false
	}
	if readSysctl(conf+"all/disable_ipv6") == "1" {
		return false
	}
	writeSysctl(conf+n.def.Bridge+"/disable_ipv6", "0")
	writeSysctl(conf+n.def.Bridge+"/accept_ra", "0")
	if err := s.route.Do(rtnl.NewAddr(index, netip.PrefixFrom(n.def.Gateway6, n.def.Subnet6.Bits()))); err != nil {
		return false
	}
	if err := enableForwarding6(); err != nil && !n.def.Internal {
		s.warn("%v: containers have IPv6 among themselves only", err)
	}
	// Answers of containers to connections that the host made from ::1 come
	// back as packets to ::1 on the bridge. The kernel looks for such a local
	// address on the receiving device alone. Nothing opens by this: a packet
	// that arrives with ::1 in its header is dropped before.
	const last = 1 << 20
	if err := s.route.Do(rtnl.NewLocal(index, netip.IPv6Loopback(), last)); err != nil {
		s.warn("ports published on network %s do not answer on [::1]: %v", n.def.Name, err)
	}
	return true
}

// settle chooses the default network's subnet. One chosen earlier stays,
// unless the bridge has to be made and the host has since got a route there.
func (s *Store) settle(n *network, exists bool) error {
	if n.def.Name != Bridge || s.cfg.Subnet.IsValid() || len(n.endpoints) > 0 {
		return nil
	}
	if n.def.Subnet.IsValid() && exists {
		return nil
	}
	old := n.def.Subnet
	n.def.Subnet = netip.Prefix{} // so that it is not in its own way
	if old.IsValid() {
		taken, err := s.takenSubnets(unix.AF_INET)
		if err != nil {
			n.def.Subnet = old
			return err
		}
		if !overlapsAny(old, taken) {
			n.def.Subnet = old
			return nil
		}
	}
	p, err := s.chooseSubnet(defaultSubnets())
	if err != nil {
		n.def.Subnet = old
		return err
	}
	n.def.Subnet, n.def.Gateway = p, nth(p, 1)
	if err := writeFile(s.defaultFile(), n.def, false); err != nil {
		n.def.Subnet = old
		return fmt.Errorf("write the default network's subnet: %w", err)
	}
	n.pools()
	return nil
}

// mtu is what was asked for, or that of the device that leads out of the host
// where it is below Ethernet's.
func (s *Store) mtu(n *network) int {
	if v, err := strconv.Atoi(n.def.Options[optMTU]); err == nil {
		return v
	}
	routes, err := s.route.Routes(unix.AF_INET)
	if err != nil {
		return 0
	}
	for _, r := range routes {
		if r.Dst.Bits() != 0 || r.Index == 0 || r.Table != unix.RT_TABLE_MAIN {
			continue
		}
		links, err := s.route.Links()
		if err != nil {
			return 0
		}
		for _, l := range links {
			if l.Index == r.Index && l.MTU >= 1280 && l.MTU < 1500 {
				return l.MTU
			}
		}
	}
	return 0
}

// down removes the bridge and the table's entry.
func (s *Store) down(n *network) error {
	c := content{}
	if n.index != 0 {
		c.network(n)
		s.dns.publish(n, c)
	}
	for i := range n.full {
		name := overflowName(n.def.Bridge, i)
		s.route.Do(rtnl.DelLink(name))
		s.dismiss(name)
	}
	if err := s.dismiss(n.def.Bridge); err != nil {
		return err
	}
	n.index, n.full, n.roomy = 0, nil, 0
	s.dns.stop(n)
	if err := s.changeTable(c, true); err != nil {
		return err
	}
	if err := s.route.Do(rtnl.DelLink(n.def.Bridge)); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove bridge %s: %w", n.def.Bridge, err)
	}
	return nil
}

func enableForwarding4() error {
	const path = "/proc/sys/net/ipv4/ip_forward"
	if readSysctl(path) == "1" {
		return nil
	}
	return writeSysctl(path, "1")
}

// enableForwarding6 turns on IPv6 forwarding. A forwarding host no longer
// listens to router advertisements and would lose its own default route;
// accept_ra=2 keeps it listening.
func enableForwarding6() error {
	const conf = "/proc/sys/net/ipv6/conf/"
	if readSysctl(conf+"all/forwarding") == "1" {
		return nil
	}
	entries, err := os.ReadDir(conf)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "all" && readSysctl(conf+e.Name()+"/accept_ra") == "1" {
			writeSysctl(conf+e.Name()+"/accept_ra", "2")
		}
	}
	return writeSysctl(conf+"all/forwarding", "1")
}

// readSysctl returns "" for a setting that does not exist. It is on the way of
// every Attach, hence without os.File.
func readSysctl(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var b [64]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b[:n]))
}

func writeSysctl(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		f.Close()
	}
	if err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", strings.TrimPrefix(path, "/proc/sys/"), value, err)
	}
	return nil
}
