package network

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"cale/network/nft"
)

// The table's rules never change; containers and networks come and go as
// elements of its sets. So publishing a port is one small transaction, a
// packet's path does not grow with the number of containers, and everything
// stays in force while no daemon runs.
const (
	setBridges  = "bridges"  // our bridges
	setInternal = "internal" // those without a way in or out
	setSame     = "same"     // pairs (bridge, bridge) whose containers may talk
	setMasq4    = "masq4"    // subnets hidden behind the host's address
	setMasq6    = "masq6"
	setNets4    = "nets4" // all our subnets
	setNets6    = "nets6"

	setProxied = "proxied" // addresses of the host that the proxy serves

	mapAddr4 = "ports4" // host address, protocol, port → container address, port
	mapAddr6 = "ports6"
	mapAny4  = "ports4_any" // protocol, port → container address, port
	mapAny6  = "ports6_any"

	// The same for ports behind the gate, which the host itself reaches by
	// these and others do not.
	ownAddr4 = "own4"
	ownAddr6 = "own6"
	ownAny4  = "own4_any"
	ownAny6  = "own6_any"
)

var tableSets = []nft.Set{
	{Name: setBridges, Key: []nft.Kind{nft.IfName}},
	{Name: setInternal, Key: []nft.Kind{nft.IfName}},
	{Name: setSame, Key: []nft.Kind{nft.IfName, nft.IfName}},
	{Name: setMasq4, Key: []nft.Kind{nft.IPv4}, Interval: true},
	{Name: setMasq6, Key: []nft.Kind{nft.IPv6}, Interval: true},
	{Name: setNets4, Key: []nft.Kind{nft.IPv4}, Interval: true},
	{Name: setNets6, Key: []nft.Kind{nft.IPv6}, Interval: true},
	{Name: setProxied, Key: []nft.Kind{nft.IPv6}},
	{Name: mapAddr4, Key: []nft.Kind{nft.IPv4, nft.Proto, nft.Port}, Data: []nft.Kind{nft.IPv4, nft.Port}},
	{Name: mapAddr6, Key: []nft.Kind{nft.IPv6, nft.Proto, nft.Port}, Data: []nft.Kind{nft.IPv6, nft.Port}},
	{Name: mapAny4, Key: []nft.Kind{nft.Proto, nft.Port}, Data: []nft.Kind{nft.IPv4, nft.Port}},
	{Name: mapAny6, Key: []nft.Kind{nft.Proto, nft.Port}, Data: []nft.Kind{nft.IPv6, nft.Port}},
	{Name: ownAddr4, Key: []nft.Kind{nft.IPv4, nft.Proto, nft.Port}, Data: []nft.Kind{nft.IPv4, nft.Port}},
	{Name: ownAddr6, Key: []nft.Kind{nft.IPv6, nft.Proto, nft.Port}, Data: []nft.Kind{nft.IPv6, nft.Port}},
	{Name: ownAny4, Key: []nft.Kind{nft.Proto, nft.Port}, Data: []nft.Kind{nft.IPv4, nft.Port}},
	{Name: ownAny6, Key: []nft.Kind{nft.Proto, nft.Port}, Data: []nft.Kind{nft.IPv6, nft.Port}},
}

var (
	proto4 = []byte{unix.NFPROTO_IPV4}
	proto6 = []byte{unix.NFPROTO_IPV6}
)

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// addRules writes the fixed part: chains and rules.
func addRules(b *nft.Batch) {
	r := nft.R
	family := nft.Meta(unix.NFT_META_NFPROTO, r(0))
	v4, v6 := nft.Equal(r(0), proto4), nft.Equal(r(0), proto6)
	in, out := nft.Meta(unix.NFT_META_IIFNAME, r(0)), nft.Meta(unix.NFT_META_OIFNAME, r(0))
	const statusDNAT = 1 << 5 // IPS_DST_NAT
	translated := func(rest ...nft.Expr) []nft.Expr {
		return append([]nft.Expr{nft.ConnTrack(unix.NFT_CT_STATUS, r(4)), nft.Mask(r(4), u32(statusDNAT)), nft.NotEqual(r(4), u32(0))}, rest...)
	}

	// route_localnet on our bridges lets the host reach containers from
	// 127.0.0.1. It must not let containers reach the host's 127.0.0.1
	// (CVE-2020-8558).
	b.AddChain(nft.Chain{Name: "guard", Type: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: -300})
	loopback4 := []nft.Expr{nft.Mask(r(0), []byte{255, 0, 0, 0}), nft.Equal(r(0), []byte{127, 0, 0, 0})}
	rule := []nft.Expr{in, nft.In(setBridges, r(0)), family, v4, nft.Addr(false, true, r(0))}
	b.AddRule("guard", append(append(rule, loopback4...), nft.Drop())...)

	// Published ports: what goes to an address of the host, from outside, from
	// containers or from the host itself.
	proto := func(n int) nft.Expr { return nft.Meta(unix.NFT_META_L4PROTO, r(n)) }
	translate := func(chain, addr4, any4, addr6, any6 string) {
		b.AddChain(nft.Chain{Name: chain})
		b.AddRule(chain, family, v4, nft.Addr(false, true, r(8)), proto(9), nft.DstPort(r(10)), nft.Map(addr4, r(8)), nft.DNAT(false, r(0), r(1)))
		b.AddRule(chain, family, v4, proto(8), nft.DstPort(r(9)), nft.Map(any4, r(8)), nft.DNAT(false, r(0), r(1)))
		b.AddRule(chain, family, v6, nft.Addr(true, true, r(8)), proto(12), nft.DstPort(r(13)), nft.Map(addr6, r(8)), nft.DNAT(true, r(0), r(4)))
		b.AddRule(chain, family, v6, proto(8), nft.DstPort(r(9)), nft.Map(any6, r(8)), nft.DNAT(true, r(0), r(4)))
	}
	translate("ports", mapAddr4, mapAny4, mapAddr6, mapAny6)
	translate("own", ownAddr4, ownAny4, ownAddr6, ownAny6)
	for name, hook := range map[string]uint32{"prerouting": unix.NF_INET_PRE_ROUTING, "output": unix.NF_INET_LOCAL_OUT} {
		b.AddChain(nft.Chain{Name: name, Type: "nat", Hook: hook, Priority: -100})
		b.AddRule(name, family, v6, nft.Addr(true, true, r(0)), nft.In(setProxied, r(0)), nft.Accept())
		b.AddRule(name, nft.DstType(r(0)), nft.Equal(r(0), u32(unix.RTN_LOCAL)), nft.Jump("ports"))
	}
	b.AddRule("output", nft.DstType(r(0)), nft.Equal(r(0), u32(unix.RTN_LOCAL)), nft.Jump("own"))

	b.AddChain(nft.Chain{Name: "postrouting", Type: "nat", Hook: unix.NF_INET_POST_ROUTING, Priority: 100})
	toBridge, away := []nft.Expr{out, nft.In(setBridges, r(0))}, []nft.Expr{out, nft.NotIn(setBridges, r(0))}
	source := func(base []nft.Expr, v6addr bool, rest ...nft.Expr) {
		e := append(append([]nft.Expr(nil), base...), family, nft.Equal(r(0), proto4), nft.Addr(false, false, r(0)))
		if v6addr {
			e[len(e)-2], e[len(e)-1] = nft.Equal(r(0), proto6), nft.Addr(true, false, r(0))
		}
		b.AddRule("postrouting", append(append(e, rest...), nft.Masquerade())...)
	}
	// The host's loopback means another machine to the container.
	source(toBridge, false, loopback4...)
	source(toBridge, true, nft.Equal(r(0), loopback6.Key))
	// A container that comes back through a published port: the answer must
	// pass here again and not go straight to it.
	source(toBridge, false, append([]nft.Expr{nft.In(setNets4, r(0))}, translated()...)...)
	source(toBridge, true, append([]nft.Expr{nft.In(setNets6, r(0))}, translated()...)...)
	source(away, false, nft.In(setMasq4, r(0)))
	source(away, true, nft.In(setMasq6, r(0)))

	b.AddChain(nft.Chain{Name: "forward", Type: "filter", Hook: unix.NF_INET_FORWARD, Priority: 0})
	b.AddRule("forward", in, nft.Meta(unix.NFT_META_OIFNAME, r(4)), nft.In(setSame, r(0)), nft.Accept())
	b.AddRule("forward", in, nft.In(setInternal, r(0)), nft.Drop())
	b.AddRule("forward", out, nft.In(setInternal, r(0)), nft.Drop())
	established := uint32(1<<1 | 1<<2) // NF_CT_STATE_BIT of established and related
	b.AddRule("forward", nft.ConnTrack(unix.NFT_CT_STATE, r(0)), nft.Mask(r(0), u32(established)), nft.NotEqual(r(0), u32(0)), nft.Accept())
	b.AddRule("forward", append(toBridge, translated(nft.Accept())...)...)
	// What was not published is for the network's own containers only.
	b.AddRule("forward", out, nft.In(setBridges, r(0)), nft.Drop())
}

var loopback6 = nft.Element{Key: netip.IPv6Loopback().AsSlice()}

// content collects a table's elements: set by set.
type content map[string][]nft.Element

func (c content) add(set string, e ...nft.Element) { c[set] = append(c[set], e...) }

func (c content) network(n *network) {
	c.bridge(n, n.def.Bridge)
	for i := range n.full {
		c.bridge(n, overflowName(n.def.Bridge, i))
	}
	c.subnet(setNets4, n.def.Subnet)
	if n.def.Subnet6.IsValid() {
		c.subnet(setNets6, n.def.Subnet6)
	}
	if n.masquerade() {
		c.subnet(setMasq4, n.def.Subnet)
		if n.def.Subnet6.IsValid() {
			c.subnet(setMasq6, n.def.Subnet6)
		}
	}
}

func (c content) bridge(n *network, name string) {
	key := nft.Name(name)
	c.add(setBridges, nft.Element{Key: key})
	if n.def.Internal {
		c.add(setInternal, nft.Element{Key: key})
	}
	if n.icc() {
		c.add(setSame, nft.Element{Key: nft.Tuple(key, key)})
	}
}

func (c content) subnet(set string, p netip.Prefix) {
	p = p.Masked()
	c.add(set, nft.Element{Key: p.Addr().AsSlice()})
	// An interval that ends with the last address there is has no end.
	if end := lastOf(p).Next(); end.IsValid() {
		c.add(set, nft.Element{Key: end.AsSlice(), End: true})
	}
}

var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// port publishes one port of a host address at an address of a container.
func (c content) port(host netip.Addr, port uint16, protocol string, to netip.AddrPort, gated bool) {
	set, any := mapAddr4, mapAny4
	switch v6 := to.Addr().Is6(); {
	case gated && v6:
		set, any = ownAddr6, ownAny6
	case gated:
		set, any = ownAddr4, ownAny4
	case v6:
		set, any = mapAddr6, mapAny6
	}
	proto := []byte{protocols[protocol]}
	e := nft.Element{Data: nft.Tuple(to.Addr().AsSlice(), be16(to.Port()))}
	if host.IsUnspecified() {
		e.Key = nft.Tuple(proto, be16(port))
		set = any
	} else {
		e.Key = nft.Tuple(host.AsSlice(), proto, be16(port))
	}
	c.add(set, e)
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func (c content) endpoint(e *Endpoint) {
	for _, p := range e.Ports {
		to := e.IPv4.Addr()
		if p.HostIP.Is6() {
			to = e.IPv6.Addr()
		}
		if to.IsValid() {
			c.port(p.HostIP, p.HostPort, p.Protocol, netip.AddrPortFrom(to, p.ContainerPort), e.Gated)
		}
	}
}

// table keeps the kernel's table as the store wants it. Its methods need the
// store's lock.
func (s *Store) batch() *nft.Batch { return &nft.Batch{Table: s.cfg.Name} }

// syncTable writes the whole table anew in one transaction: at no moment is a
// port closed or a network open that should not be.
func (s *Store) syncTable() error {
	b := s.batch()
	b.AddTable() // so that the deletion finds one
	b.DelTable()
	b.AddTable()
	for _, set := range tableSets {
		b.AddSet(set)
	}
	addRules(b)
	c := content{}
	if s.bridged {
		c.add(setProxied, loopback6)
	}
	for _, n := range s.nets {
		if n.index == 0 || n.def.child() {
			continue
		}
		c.network(n)
		for _, e := range n.endpoints {
			c.endpoint(e)
		}
		s.dns.publish(n, c)
	}
	for _, set := range tableSets {
		b.AddElements(set.Name, c[set.Name])
	}
	err := b.Run(s.filter)
	s.synced = err == nil
	if err == nil {
		err = s.syncGate()
	}
	return err
}

// changeTable adds or deletes elements. Whatever is in the way, such as
// somebody else's `nft flush ruleset`, the table is then written anew from
// what the store knows; so the store's state must change before this call.
func (s *Store) changeTable(c content, del bool) error {
	if len(c) == 0 && s.synced {
		return nil
	}
	if s.synced {
		b := s.batch()
		for _, set := range tableSets {
			if del {
				b.DelElements(set.Name, c[set.Name])
			} else {
				b.AddElements(set.Name, c[set.Name])
			}
		}
		err := b.Run(s.filter)
		if err == nil && c.gated() {
			return s.syncGate()
		}
		if err == nil {
			return nil
		}
		if errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return s.syncTable()
}

// gated reports whether it has anything of the gate's.
func (c content) gated() bool {
	return len(c[ownAddr4])+len(c[ownAddr6])+len(c[ownAny4])+len(c[ownAny6]) > 0
}

// dropTable deletes the table if it is there.
func (s *Store) dropTable() error {
	b := s.batch()
	b.AddTable()
	b.DelTable()
	s.synced = false
	return errors.Join(b.Run(s.filter), s.syncGate())
}
