package network

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"cale/network/dns"
	"cale/network/nft"
	"cale/network/rtnl"
)

// Containers on networks that users define find each other by name. A server
// for each such network listens on the bridge, on any free port; the host's
// table sends the gateway's port 53 there, as if it were a published port.
// Inside, a table of the container's own sends 127.0.0.11:53, the address
// Docker's users know, to the gateway. So the daemon holds no socket for each
// container, and after its restart the containers' tables still hold good.

// resolverAddr is what resolv.conf names.
var resolverAddr = netip.AddrFrom4([4]byte{127, 0, 0, 11})

const dnsPort = 53

// names runs the servers; the store's lock guards it.
type names struct {
	store   *Store
	servers map[string]*dns.Server // by network ID
	inside  map[string]*dns.Server // by endpoint ID, in their namespaces
}

func newNames(s *Store) *names {
	return &names{store: s, servers: map[string]*dns.Server{}, inside: map[string]*dns.Server{}}
}

func (d *names) close() {
	for _, list := range []map[string]*dns.Server{d.servers, d.inside} {
		for id, server := range list {
			server.Close()
			delete(list, id)
		}
	}
}

// serve starts a network's server. Its bridge must have its address.
func (d *names) serve(n *network) error {
	if n.def.Name == Bridge || d.serves(n) {
		return nil
	}
	server, err := dns.Listen(n.def.Gateway, zone{store: d.store, network: n.def.ID})
	if err != nil {
		return err
	}
	d.servers[n.def.ID] = server
	return nil
}

func (d *names) serves(n *network) bool { return d.servers[n.def.ID] != nil }

func (d *names) stop(n *network) {
	if server := d.servers[n.def.ID]; server != nil {
		server.Close()
		delete(d.servers, n.def.ID)
	}
}

// publish adds the server's port to what the table must hold.
func (d *names) publish(n *network, c content) {
	server := d.servers[n.def.ID]
	if server == nil {
		return
	}
	udp, tcp := server.Ports()
	c.port(n.def.Gateway, dnsPort, "udp", netip.AddrPortFrom(n.def.Gateway, udp), false)
	c.port(n.def.Gateway, dnsPort, "tcp", netip.AddrPortFrom(n.def.Gateway, tcp), false)
}

// redirect makes 127.0.0.11 answer inside a container.
func (d *names) redirect(n *network, e *Endpoint, ns int, inside *rtnl.Conn, index int) (err error) {
	udp, tcp := netip.AddrPortFrom(n.def.Gateway, dnsPort), netip.AddrPortFrom(n.def.Gateway, dnsPort)
	if n.def.child() {
		if udp, tcp, err = d.enter(e, ns); err != nil {
			return fmt.Errorf("answer names in the container: %w", err)
		}
	} else if err := inside.Do(rtnl.RouteLocalnet(index)); err != nil {
		return fmt.Errorf("let %s reach the network: %w", resolverAddr, err)
	}
	var filter *rtnl.Conn
	err = rtnl.In(ns, func() (err error) {
		filter, err = rtnl.OpenNetfilter()
		return err
	})
	if err != nil {
		return err
	}
	defer filter.Close()
	r := nft.R
	b := nft.Batch{Table: "cale-names"}
	b.AddTable()
	b.DelTable()
	b.AddTable()
	b.AddChain(nft.Chain{Name: "output", Type: "nat", Hook: unix.NF_INET_LOCAL_OUT, Priority: -100})
	v4 := []nft.Expr{nft.Meta(unix.NFT_META_NFPROTO, r(0)), nft.Equal(r(0), proto4)}
	for proto, to := range map[uint8]netip.AddrPort{unix.IPPROTO_UDP: udp, unix.IPPROTO_TCP: tcp} {
		b.AddRule("output", append(v4, nft.Addr(false, true, r(0)), nft.Equal(r(0), resolverAddr.AsSlice()),
			nft.Meta(unix.NFT_META_L4PROTO, r(0)), nft.Equal(r(0), []byte{proto}),
			nft.DstPort(r(0)), nft.Equal(r(0), be16(dnsPort)),
			nft.Load(r(0), to.Addr().AsSlice()), nft.Load(r(1), be16(to.Port())), nft.DNAT(false, r(0), r(1)))...)
	}
	// The packet was made for the loopback and bears its address.
	b.AddChain(nft.Chain{Name: "postrouting", Type: "nat", Hook: unix.NF_INET_POST_ROUTING, Priority: 100})
	b.AddRule("postrouting", append(v4, nft.Meta(unix.NFT_META_OIFNAME, r(0)), nft.NotEqual(r(0), nft.Name("lo")),
		nft.Addr(false, false, r(0)), nft.Mask(r(0), []byte{255, 0, 0, 0}), nft.Equal(r(0), []byte{127, 0, 0, 0}), nft.Masquerade())...)
	if err := b.Run(filter); err != nil {
		return fmt.Errorf("redirect %s: %w", resolverAddr, err)
	}
	return nil
}

// zone is what the clients on one network may know.
type zone struct {
	store   *Store
	network string
	// container is the only one that can ask, "" for any on the network.
	container string
}

// client finds who asks by the address on the zone's network.
func (z zone) client(from netip.Addr) []*Endpoint {
	if z.container != "" {
		return z.store.containers[z.container]
	}
	n := z.store.nets[z.network]
	if n == nil {
		return nil
	}
	for _, e := range n.endpoints {
		if e.IPv4.Addr() == from || e.IPv6.Addr() == from {
			return z.store.containers[e.Container]
		}
	}
	return nil
}

// Lookup answers from all networks the client is on, except the default one.
func (z zone) Lookup(from netip.Addr, name string) (addrs []netip.Addr, known, client bool) {
	s := z.store
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := z.client(from)
	for _, m := range mine {
		n := s.nets[m.NetworkID]
		if n.def.Name == Bridge {
			continue
		}
		// A name may be followed by its network's.
		short, qualified := strings.CutSuffix(name, "."+strings.ToLower(n.def.Name))
		linked := m.linked(name)
		for _, e := range n.endpoints {
			if e.answers(name) || qualified && e.answers(short) || linked != "" && e.answers(linked) {
				known = true
				addrs = append(addrs, e.IPv4.Addr())
				if e.IPv6.IsValid() {
					addrs = append(addrs, e.IPv6.Addr())
				}
			}
		}
	}
	return addrs, known, len(mine) > 0
}

// linked is the name that a link of the endpoint's gives an alias to, or "".
func (e *Endpoint) linked(alias string) string {
	for _, l := range e.Links {
		if name, as, ok := strings.Cut(l, ":"); ok && strings.EqualFold(as, alias) {
			return name
		}
	}
	return ""
}

func (e *Endpoint) answers(name string) bool {
	if name == "" {
		return false
	}
	if strings.EqualFold(e.Name, name) || strings.EqualFold(e.Hostname, name) || len(name) == 12 && strings.HasPrefix(e.Container, name) {
		return true
	}
	for _, a := range e.Aliases {
		if strings.EqualFold(a, name) {
			return true
		}
	}
	return false
}

// Reverse names an address as name.network.
func (z zone) Reverse(from, addr netip.Addr) string {
	s := z.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range z.client(from) {
		n := s.nets[m.NetworkID]
		if n.def.Name == Bridge {
			continue
		}
		for _, e := range n.endpoints {
			if (e.IPv4.Addr() == addr || e.IPv6.Addr() == addr) && e.Name != "" {
				return e.Name + "." + n.def.Name
			}
		}
	}
	return ""
}

// Upstream returns the client's own servers or the host's. Who is on internal
// networks only gets nothing from outside, CVE-2024-29018.
func (z zone) Upstream(from netip.Addr) []netip.AddrPort {
	s := z.store
	s.mu.Lock()
	defer s.mu.Unlock()
	outside := false
	var addrs []netip.Addr
	for _, e := range z.client(from) {
		outside = outside || !s.nets[e.NetworkID].def.Internal
		if addrs == nil {
			addrs = e.Servers
		}
	}
	if !outside {
		return nil
	}
	if len(addrs) == 0 {
		// This process may ask what listens on the host's loopback.
		if d, err := readResolv(resolvPaths[0]); err == nil {
			addrs = d.Servers
		}
	}
	var servers []netip.AddrPort
	for _, a := range addrs {
		servers = append(servers, netip.AddrPortFrom(a, dnsPort))
	}
	return servers
}
