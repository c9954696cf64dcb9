package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"cale/network/nft"
	"cale/network/rtnl"
)

// A published port is translated before the host's firewall looks: its packets
// are forwarded, and what the host's administrator says of incoming traffic
// does not touch them. The gate makes it hold for networks that obey the host
// (optFirewall). A new connection's first packet is not translated but goes
// where packets to the host go, past all rules for incoming traffic, whoever
// wrote them. Only if none of them minds does it come to our chain, the last
// one. That notes the connection in a set, sends the packet round once more,
// through a pair of devices that leads back to the host, and drops this one.
// Back at the beginning the set says that the connection may pass: now it is
// translated, and with it all that follows. Nothing of this needs a daemon,
// and the container sees who connects.
//
// Where the kernel can't send a packet round (nft_dup_ipv4, nft_dup_ipv6) the
// peer does: TCP and SCTP send the first packet again after a second, and most
// users of UDP do too. What the host itself sends to its published ports is
// translated at once.
const (
	gateAddr  = "ports"     // host address, protocol, port → container address, port
	gateAny   = "ports_any" // protocol, port → container address, port
	gateLet   = "let"       // connections that the host's rules let in
	gateTable = "-gate"     // behind the store's name

	gatePatience = 5 * time.Second // for the first packet to come again
	gateSize     = 1 << 18
)

// Values of optFirewall and Config.Firewall.
const (
	FirewallHost      = "host"      // the host's rules for incoming traffic hold for published ports
	FirewallPublished = "published" // what is published is open
)

const optFirewall = "cale.firewall"

func checkFirewall(value string) error {
	switch value {
	case "", FirewallHost, FirewallPublished:
		return nil
	}
	return fmt.Errorf("%w firewall %q: it is %s or %s", ErrInvalid, value, FirewallHost, FirewallPublished)
}

// gated reports whether what a network publishes passes the gate.
func (s *Store) gated(n *network) bool {
	if v := n.def.Options[optFirewall]; v != "" {
		return v == FirewallHost
	}
	return s.cfg.Firewall == FirewallHost
}

// gateFamily is what differs between the two families.
type gateFamily struct {
	family uint8
	v6     bool
	addr   nft.Kind
	words  int        // registers that an address takes
	nobody netip.Addr // where the packet that goes round is sent: nobody has to be there
}

var gateFamilies = []gateFamily{
	{unix.NFPROTO_IPV4, false, nft.IPv4, 1, netip.AddrFrom4([4]byte{169, 254, 0, 1})},
	{unix.NFPROTO_IPV6, true, nft.IPv6, 4, netip.MustParseAddr("fe80::1")},
}

// gateDevices are the pair's names.
func (s *Store) gateDevices() (out, back string) {
	sum := sha256.Sum256([]byte(s.cfg.Name))
	name := "cg" + hex.EncodeToString(sum[:5])
	return name + "o", name + "b"
}

// gateBack is the address of the device by which packets come back. The kernel does not take a peer's packets from a
// device without one, unless nowhere on the host the ways of peers are checked.
var gateBack = netip.MustParsePrefix("169.254.0.2/32")

// gateDevice makes the pair of devices and gives the index of the one that
// packets are sent into. Both have the same address and ask nobody for any, so
// that what goes in at one is at once taken for its own by the other.
func (s *Store) gateDevice() (int, error) {
	out, back := s.gateDevices()
	mac := net.HardwareAddr{0x02, 0xca, 0x1e, 0, 0, 1}
	_, err := s.route.Link(out)
	if errors.Is(err, unix.ENODEV) {
		err = s.route.Do(rtnl.NewVeth(rtnl.Veth{Name: out, Peer: back, PeerMAC: mac, PeerNS: -1}))
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("make devices %s and %s: %w", out, back, err)
	}
	// A pair that is there may be of a process that died over it.
	index := 0
	for _, name := range []string{back, out} {
		l, err := s.route.Link(name)
		if err == nil {
			index = l.Index
			err = s.route.Do(rtnl.SetSilent(index, mac))
		}
		if err == nil && name == back {
			err = s.route.Do(rtnl.NewAddr(index, gateBack))
		}
		if err != nil {
			return 0, fmt.Errorf("set up device %s: %w", name, err)
		}
	}
	// Peers come back by another device than answers leave by. The kernel takes the larger one of this and what is set
	// for all devices: 2, which is content with any way to the peer, has its way where that is the strict 1.
	if err := writeSysctl("/proc/sys/net/ipv4/conf/"+back+"/rp_filter", "2"); err != nil {
		return 0, err
	}
	return index, nil
}

// syncGate writes the gate's tables anew, by what is published through it, or
// takes them away if that is nothing.
func (s *Store) syncGate() error {
	var ports [2]content
	for _, list := range s.containers {
		for _, e := range list {
			if !e.Gated || s.nets[e.NetworkID].def.child() {
				continue
			}
			for i, f := range gateFamilies {
				if ports[i] == nil {
					ports[i] = content{}
				}
				ports[i].gate(e, f.v6)
			}
		}
	}
	var errs []error
	used, wrote := false, false
	for i, f := range gateFamilies {
		here := len(ports[i]) > 0
		used = used || here
		if here || s.gates[i] {
			errs = append(errs, s.writeGate(f, ports[i]))
			s.gates[i] = here
			wrote = true
		}
	}
	if out, _ := s.gateDevices(); wrote && !used {
		s.route.Do(rtnl.DelLink(out)) // with its peer
	}
	return errors.Join(errs...)
}

func (s *Store) writeGate(f gateFamily, ports content) error {
	write := func(round func() []nft.Expr) error {
		b := &nft.Batch{Table: s.cfg.Name + gateTable, Family: f.family}
		b.AddTable() // so that the deletion finds one
		b.DelTable()
		if len(ports) == 0 {
			return b.Run(s.filter)
		}
		b.AddTable()
		data := []nft.Kind{f.addr, nft.Port}
		b.AddSet(nft.Set{Name: gateAddr, Key: []nft.Kind{f.addr, nft.Proto, nft.Port}, Data: data})
		b.AddSet(nft.Set{Name: gateAny, Key: []nft.Kind{nft.Proto, nft.Port}, Data: data})
		b.AddSet(nft.Set{Name: gateLet, Key: []nft.Kind{f.addr, f.addr, nft.Proto, nft.Port, nft.Port}, Dynamic: true, Timeout: gatePatience, Size: gateSize})
		f.rules(b, round())
		for set, elements := range ports {
			b.AddElements(set, elements)
		}
		return b.Run(s.filter)
	}
	device := 0
	if len(ports) > 0 {
		var err error
		if device, err = s.gateDevice(); err != nil {
			return err
		}
	}
	r := nft.R
	err := write(func() []nft.Expr {
		return []nft.Expr{nft.Load(r(0), f.nobody.AsSlice()), nft.Load(r(4), u32(uint32(device))), nft.Dup(r(0), r(4))}
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		s.warn("this kernel can't send packets round (nft_dup_ipv4, nft_dup_ipv6): connections to published ports that obey the host's firewall begin a second late")
		err = write(func() []nft.Expr { return nil })
	}
	return err
}

// rules writes the chains; round is what sends a packet round.
func (f gateFamily) rules(b *nft.Batch, round []nft.Expr) {
	r := nft.R
	// The set's key: both addresses, protocol, both ports.
	at := 2 * f.words
	key := []nft.Expr{nft.Addr(f.v6, false, r(0)), nft.Addr(f.v6, true, r(f.words)), nft.Meta(unix.NFT_META_L4PROTO, r(at)),
		nft.SrcPort(r(at + 1)), nft.DstPort(r(at + 2))}
	byAddr := []nft.Expr{nft.Addr(f.v6, true, r(8)), nft.Meta(unix.NFT_META_L4PROTO, r(8+f.words)), nft.DstPort(r(9 + f.words)), nft.Map(gateAddr, r(8))}
	byAny := []nft.Expr{nft.Meta(unix.NFT_META_L4PROTO, r(8)), nft.DstPort(r(9)), nft.Map(gateAny, r(8))}
	const stateNew = 1 << 3 // NF_CT_STATE_BIT(IP_CT_NEW)
	fresh := []nft.Expr{nft.ConnTrack(unix.NFT_CT_STATE, r(0)), nft.Mask(r(0), u32(stateNew)), nft.NotEqual(r(0), u32(0))}

	// Broadcasts and multicasts are for whoever listens on the host.
	local := []nft.Expr{nft.DstType(r(0)), nft.Equal(r(0), u32(unix.RTN_LOCAL))}

	b.AddChain(nft.Chain{Name: "prerouting", Type: "nat", Hook: unix.NF_INET_PRE_ROUTING, Priority: -101})
	b.AddChain(nft.Chain{Name: "input", Type: "filter", Hook: unix.NF_INET_LOCAL_IN, Priority: math.MaxInt32 - 1})
	for _, find := range [][]nft.Expr{byAddr, byAny} {
		let := append(slices.Concat(local, key), nft.In(gateLet, r(0)))
		b.AddRule("prerouting", append(append(let, find...), nft.DNAT(f.v6, r(0), r(f.words)))...)

		passed := append(slices.Concat(local, fresh, find, key), nft.Note(gateLet, r(0)))
		b.AddRule("input", append(append(passed, round...), nft.Drop())...)
	}
}

// gate adds what an endpoint publishes in one family.
func (c content) gate(e *Endpoint, v6 bool) {
	for _, p := range e.Ports {
		to := e.IPv4.Addr()
		if v6 {
			to = e.IPv6.Addr()
		}
		if p.HostIP.Is6() != v6 || !to.IsValid() {
			continue
		}
		proto := []byte{protocols[p.Protocol]}
		el := nft.Element{Data: nft.Tuple(to.AsSlice(), be16(p.ContainerPort))}
		if p.HostIP.IsUnspecified() {
			el.Key = nft.Tuple(proto, be16(p.HostPort))
			c.add(gateAny, el)
		} else {
			el.Key = nft.Tuple(p.HostIP.AsSlice(), proto, be16(p.HostPort))
			c.add(gateAddr, el)
		}
	}
}
