package rtnl

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Link is what the kernel tells about a network device.
type Link struct {
	Index  int
	Name   string
	Kind   string // "bridge", "veth", …; empty for hardware
	MAC    net.HardwareAddr
	Master int
	Up     bool
	MTU    int
	State  uint8 // RFC 2863, see StateUp
}

// StateUp is the State of a device that carries packets.
const StateUp = 6 // IF_OPER_UP of <linux/if.h>

func linkHeader(index int, flags, change uint32) []byte {
	h := unix.IfInfomsg{Family: unix.AF_UNSPEC, Index: int32(index), Flags: flags, Change: change}
	return append([]byte(nil), bytesOf(&h)...)
}

// NewBridge asks for a bridge that is up at once. Its address is given so
// that it does not change with the ports.
func NewBridge(name string, mac net.HardwareAddr, mtu int) *Message {
	m := New(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkHeader(0, unix.IFF_UP, unix.IFF_UP))
	m.String(unix.IFLA_IFNAME, name)
	m.Attr(unix.IFLA_ADDRESS, mac)
	if mtu > 0 {
		m.Uint32(unix.IFLA_MTU, uint32(mtu))
	}
	return m.Nest(unix.IFLA_LINKINFO, func() { m.String(unix.IFLA_INFO_KIND, "bridge") })
}

// Veth describes a pair: the near end in the socket's namespace on a bridge,
// the far end in another namespace. The near end is up at once; the far one
// cannot be, since veth refuses to open an end that has no other yet.
type Veth struct {
	Name    string
	Master  int // 0 for none
	MTU     int // 0 for the default
	Peer    string
	PeerMAC net.HardwareAddr
	PeerNS  int // descriptor, or -1 for the same namespace
}

// NewVeth asks for the pair, with one queue each: veth passes packets on
// without queueing, but by default has a queue for every processor, each of
// them an object to make and register.
func NewVeth(v Veth) *Message {
	m := New(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkHeader(0, unix.IFF_UP, unix.IFF_UP))
	m.String(unix.IFLA_IFNAME, v.Name)
	if v.Master > 0 {
		m.Uint32(unix.IFLA_MASTER, uint32(v.Master))
	}
	if v.MTU > 0 {
		m.Uint32(unix.IFLA_MTU, uint32(v.MTU))
	}
	m.Uint32(unix.IFLA_NUM_TX_QUEUES, 1).Uint32(unix.IFLA_NUM_RX_QUEUES, 1)
	return m.Nest(unix.IFLA_LINKINFO, func() {
		m.String(unix.IFLA_INFO_KIND, "veth")
		m.Nest(unix.IFLA_INFO_DATA, func() {
			m.Nest(1, func() { // VETH_INFO_PEER
				m.Raw(linkHeader(0, 0, 0))
				m.String(unix.IFLA_IFNAME, v.Peer)
				m.Uint32(unix.IFLA_NUM_TX_QUEUES, 1).Uint32(unix.IFLA_NUM_RX_QUEUES, 1)
				if v.PeerMAC != nil {
					m.Attr(unix.IFLA_ADDRESS, v.PeerMAC)
				}
				if v.MTU > 0 {
					m.Uint32(unix.IFLA_MTU, uint32(v.MTU))
				}
				if v.PeerNS >= 0 {
					m.Uint32(unix.IFLA_NET_NS_FD, uint32(v.PeerNS))
				}
			})
		})
	})
}

// Child is a device on another one, made in another namespace.
type Child struct {
	Name   string
	Parent int // index
	MTU    int // 0 for the parent's
	NS     int // descriptor
}

func (c *Child) message(kind string, data func(m *Message)) *Message {
	m := New(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkHeader(0, 0, 0))
	m.String(unix.IFLA_IFNAME, c.Name).Uint32(unix.IFLA_LINK, uint32(c.Parent)).Uint32(unix.IFLA_NET_NS_FD, uint32(c.NS))
	if c.MTU > 0 {
		m.Uint32(unix.IFLA_MTU, uint32(c.MTU))
	}
	return m.Nest(unix.IFLA_LINKINFO, func() {
		m.String(unix.IFLA_INFO_KIND, kind)
		m.Nest(unix.IFLA_INFO_DATA, func() { data(m) })
	})
}

// NewMacvlan asks for a device with an address of its own on the parent's network; mode is one of MACVLAN_MODE_….
func NewMacvlan(c Child, mode uint32, mac net.HardwareAddr) *Message {
	const macvlanMode = 1 // IFLA_MACVLAN_MODE
	m := c.message("macvlan", func(m *Message) { m.Uint32(macvlanMode, mode) })
	return m.Attr(unix.IFLA_ADDRESS, mac)
}

// NewIPvlan asks for a device that shares the parent's hardware address; mode is one of IPVLAN_MODE_…, and that of all of
// the parent's, flags are IPVLAN_F_….
func NewIPvlan(c Child, mode, flags uint16) *Message {
	const ipvlanMode, ipvlanFlags = 1, 2 // IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS
	return c.message("ipvlan", func(m *Message) { m.Attr(ipvlanMode, u16(mode)).Attr(ipvlanFlags, u16(flags)) })
}

func u16(v uint16) []byte { return native.AppendUint16(nil, v) }

// NewVLAN asks for the device of a VLAN, up, on another one.
func NewVLAN(name string, parent int, id uint16) *Message {
	const vlanID = 1 // IFLA_VLAN_ID
	m := New(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkHeader(0, unix.IFF_UP, unix.IFF_UP))
	m.String(unix.IFLA_IFNAME, name).Uint32(unix.IFLA_LINK, uint32(parent))
	return m.Nest(unix.IFLA_LINKINFO, func() {
		m.String(unix.IFLA_INFO_KIND, "vlan")
		m.Nest(unix.IFLA_INFO_DATA, func() { m.Attr(vlanID, u16(id)) })
	})
}

// NewDummy asks for a device, up, that leads nowhere.
func NewDummy(name string) *Message {
	m := New(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkHeader(0, unix.IFF_UP, unix.IFF_UP))
	m.String(unix.IFLA_IFNAME, name)
	return m.Nest(unix.IFLA_LINKINFO, func() { m.String(unix.IFLA_INFO_KIND, "dummy") })
}

// DelLink deletes a device by name.
func DelLink(name string) *Message {
	return New(unix.RTM_DELLINK, 0, linkHeader(0, 0, 0)).String(unix.IFLA_IFNAME, name)
}

// DelLinkIndex deletes a device by its index.
func DelLinkIndex(index int) *Message { return New(unix.RTM_DELLINK, 0, linkHeader(index, 0, 0)) }

// SetSilent brings a device up with an address, and has it ask nobody for
// theirs: neighbours are taken to have its own.
func SetSilent(index int, mac net.HardwareAddr) *Message {
	const flags = unix.IFF_UP | unix.IFF_NOARP
	return New(unix.RTM_NEWLINK, 0, linkHeader(index, flags, flags)).Attr(unix.IFLA_ADDRESS, mac)
}

// SetUp brings a device up.
func SetUp(index int) *Message {
	return New(unix.RTM_NEWLINK, 0, linkHeader(index, unix.IFF_UP, unix.IFF_UP))
}

// SetMaster puts a device on a bridge; 0 takes it off.
func SetMaster(index, master int) *Message {
	return New(unix.RTM_NEWLINK, 0, linkHeader(index, 0, 0)).Uint32(unix.IFLA_MASTER, uint32(master))
}

// SetPort changes how a bridge treats one of its ports. An isolated port
// exchanges no frames with other isolated ports; a hairpin port may get back
// what came from it.
func SetPort(index int, isolated, hairpin bool) *Message {
	h := unix.IfInfomsg{Family: unix.AF_BRIDGE, Index: int32(index)}
	m := New(unix.RTM_SETLINK, 0, append([]byte(nil), bytesOf(&h)...))
	const portMode, portIsolated = 4, 33 // IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED
	return m.Nest(unix.IFLA_PROTINFO, func() {
		m.Uint8(portMode, flag(hairpin)).Uint8(portIsolated, flag(isolated))
	})
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// RouteLocalnet allows a device to carry packets of 127.0.0.0/8, which the
// kernel otherwise drops as martians. Unlike the sysctl it reaches the
// namespace of the socket.
func RouteLocalnet(index int) *Message {
	m := New(unix.RTM_NEWLINK, 0, linkHeader(index, 0, 0))
	const routeLocalnet = 26 // IPV4_DEVCONF_ROUTE_LOCALNET
	return m.Nest(unix.IFLA_AF_SPEC, func() {
		m.Nest(unix.AF_INET, func() {
			m.Nest(1, func() { // IFLA_INET_CONF
				m.Uint32(routeLocalnet, 1)
			})
		})
	})
}

// NewAddr adds an address to a device. IPv6 addresses are usable at once:
// nobody else hands out addresses of our networks, so duplicate detection
// would only cost a second.
func NewAddr(index int, p netip.Prefix) *Message {
	h := unix.IfAddrmsg{Family: family(p.Addr()), Prefixlen: uint8(p.Bits()), Index: uint32(index)}
	if p.Addr().Is6() {
		h.Flags = unix.IFA_F_NODAD
	}
	m := New(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, append([]byte(nil), bytesOf(&h)...))
	a := p.Addr().AsSlice()
	m.Attr(unix.IFA_LOCAL, a).Attr(unix.IFA_ADDRESS, a)
	if p.Addr().Is4() && p.Bits() < 31 {
		m.Attr(unix.IFA_BROADCAST, broadcast(p))
	}
	return m
}

func broadcast(p netip.Prefix) []byte {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b[:]
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// NewDefault adds a default route.
func NewDefault(gateway netip.Addr) *Message {
	return defaultRoute(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, gateway)
}

// DelDefault removes the default route by a gateway.
func DelDefault(gateway netip.Addr) *Message { return defaultRoute(unix.RTM_DELROUTE, 0, gateway) }

func defaultRoute(typ, flags uint16, gateway netip.Addr) *Message {
	h := unix.RtMsg{Family: family(gateway), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT, Scope: unix.RT_SCOPE_UNIVERSE, Type: unix.RTN_UNICAST}
	return New(typ, flags, append([]byte(nil), bytesOf(&h)...)).Attr(unix.RTA_GATEWAY, gateway.AsSlice())
}

// NewLocal adds a local route for one address through a device, less
// preferred than the kernel's own.
func NewLocal(index int, a netip.Addr, metric uint32) *Message {
	h := unix.RtMsg{Family: family(a), Dst_len: uint8(a.BitLen()), Table: unix.RT_TABLE_LOCAL, Protocol: unix.RTPROT_BOOT, Scope: unix.RT_SCOPE_HOST, Type: unix.RTN_LOCAL}
	m := New(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, append([]byte(nil), bytesOf(&h)...))
	return m.Attr(unix.RTA_DST, a.AsSlice()).Uint32(unix.RTA_OIF, uint32(index)).Uint32(unix.RTA_PRIORITY, metric)
}

// Link finds a device by name. A missing one is an *Error of ENODEV.
func (c *Conn) Link(name string) (Link, error) {
	var l Link
	m := New(unix.RTM_GETLINK, 0, linkHeader(0, 0, 0)).String(unix.IFLA_IFNAME, name)
	err := c.Dump(m, func(typ uint16, b []byte) { l = parseLink(b) })
	return l, err
}

// Links lists all devices.
func (c *Conn) Links() ([]Link, error) {
	var all []Link
	m := New(unix.RTM_GETLINK, unix.NLM_F_DUMP, linkHeader(0, 0, 0))
	err := c.Dump(m, func(typ uint16, b []byte) {
		if typ == unix.RTM_NEWLINK {
			all = append(all, parseLink(b))
		}
	})
	return all, err
}

func parseLink(b []byte) Link {
	var l Link
	if len(b) < unix.SizeofIfInfomsg {
		return l
	}
	l.Index = int(int32(native.Uint32(b[4:])))
	l.Up = native.Uint32(b[8:])&unix.IFF_UP != 0
	Attrs(b[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = cString(v)
		case unix.IFLA_ADDRESS:
			l.MAC = append(net.HardwareAddr(nil), v...)
		case unix.IFLA_MASTER:
			l.Master = int(u32(v))
		case unix.IFLA_MTU:
			l.MTU = int(u32(v))
		case unix.IFLA_OPERSTATE:
			if len(v) == 1 {
				l.State = v[0]
			}
		case unix.IFLA_LINKINFO:
			Attrs(v, func(typ uint16, v []byte) {
				if typ == unix.IFLA_INFO_KIND {
					l.Kind = cString(v)
				}
			})
		}
	})
	return l
}

// Route is a route of the main table, or of any table for Routes' caller to
// judge.
type Route struct {
	Dst   netip.Prefix
	Table uint32
	Type  uint8
	Index int // of the device
	Via   bool
}

// Routes lists the routes of one family (unix.AF_INET or AF_INET6).
func (c *Conn) Routes(fam uint8) ([]Route, error) {
	var all []Route
	h := unix.RtMsg{Family: fam}
	m := New(unix.RTM_GETROUTE, unix.NLM_F_DUMP, append([]byte(nil), bytesOf(&h)...))
	err := c.Dump(m, func(typ uint16, b []byte) {
		if typ != unix.RTM_NEWROUTE || len(b) < unix.SizeofRtMsg {
			return
		}
		bits := int(b[1])
		r := Route{Table: uint32(b[4]), Type: b[7]}
		dst := netip.IPv4Unspecified()
		if fam == unix.AF_INET6 {
			dst = netip.IPv6Unspecified()
		}
		Attrs(b[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
			switch typ {
			case unix.RTA_DST:
				if a, ok := netip.AddrFromSlice(v); ok {
					dst = a
				}
			case unix.RTA_OIF:
				r.Index = int(u32(v))
			case unix.RTA_TABLE:
				r.Table = u32(v)
			case unix.RTA_GATEWAY, unix.RTA_VIA:
				r.Via = true
			}
		})
		r.Dst = netip.PrefixFrom(dst, bits)
		all = append(all, r)
	})
	return all, err
}

func u32(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return native.Uint32(v)
}

func cString(v []byte) string {
	for i, c := range v {
		if c == 0 {
			return string(v[:i])
		}
	}
	return string(v)
}
