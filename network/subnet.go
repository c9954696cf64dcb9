package network

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// defaultSubnets are the candidates for the default network, in order: first
// the one people know from Podman, then what is left of private space.
func defaultSubnets() []netip.Prefix {
	list := []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")}
	for i := 64; i < 88; i++ {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16))
	}
	for i := 16; i < 32; i++ {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i), 0, 0}), 16))
	}
	for i := 0; i < 256; i += 16 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i), 0}), 20))
	}
	return list
}

// userSubnets are the candidates for networks that users define.
func userSubnets() []netip.Prefix {
	var list []netip.Prefix
	for i := 89; i < 128; i++ {
		for j := 0; j < 256; j += 16 {
			list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(j), 0}), 20))
		}
	}
	for i := 0; i < 256; i += 16 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i), 0}), 20))
	}
	return list
}

// chooseSubnet takes the first candidate that overlaps neither a route of the
// host nor a network of ours nor a name server. Instances with another name
// start elsewhere in the list: two that come up at the same time do not see
// each other's routes yet.
func (s *Store) chooseSubnet(candidates []netip.Prefix) (netip.Prefix, error) {
	taken, err := s.takenSubnets(unix.AF_INET)
	if err != nil {
		return netip.Prefix{}, err
	}
	if d, err := readResolv(resolvPaths[0]); err == nil {
		for _, a := range d.Servers {
			if a = a.Unmap(); a.Is4() {
				taken = append(taken, netip.PrefixFrom(a, 32))
			}
		}
	}
	start := 0
	if s.cfg.Name != defaultName {
		sum := sha256.Sum256([]byte(s.cfg.Name))
		start = int(binary.BigEndian.Uint32(sum[:]) % uint32(len(candidates)))
	}
	for i := range candidates {
		c := candidates[(start+i)%len(candidates)]
		if !overlapsAny(c, taken) {
			return c, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("no free subnet: all %d candidates overlap routes of the host or other networks; give a subnet", len(candidates))
}

func overlapsAny(p netip.Prefix, list []netip.Prefix) bool {
	for _, q := range list {
		if p.Overlaps(q) {
			return true
		}
	}
	return false
}

// takenSubnets lists what the host routes somewhere and what our networks
// have. Default routes and the routes of our own bridges do not count.
func (s *Store) takenSubnets(family uint8) ([]netip.Prefix, error) {
	var taken []netip.Prefix
	own := map[int]bool{}
	for _, n := range s.nets {
		if family == unix.AF_INET {
			taken = append(taken, n.def.Subnet)
		} else if n.def.Subnet6.IsValid() {
			taken = append(taken, n.def.Subnet6)
		}
		if l, err := s.route.Link(n.def.Bridge); err == nil && n.def.Bridge != "" {
			own[l.Index] = true
		}
	}
	routes, err := s.route.Routes(family)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		// A VPN may cover everything with two halves; that is a default route.
		if r.Dst.Bits() > 1 && !own[r.Index] && r.Type != unix.RTN_MULTICAST && r.Table != unix.RT_TABLE_LOCAL {
			taken = append(taken, r.Dst.Masked())
		}
	}
	return taken, nil
}

// newULA makes a random unique local subnet, see RFC 4193: nobody else has it.
func newULA() netip.Prefix {
	var b [16]byte
	rand.Read(b[:8])
	b[0] = 0xfd
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}
