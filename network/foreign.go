package network

import (
	"fmt"

	"golang.org/x/sys/unix"

	"cale/network/nft"
)

// A packet must pass every table's forward chain. Docker, among others, sets
// the policy of iptables' FORWARD chain to drop, and what our table accepts is
// dropped there. So where that is the case, that chain gets rules that accept
// our bridges' packets; our own table still decides what they may do. The
// rules look as iptables writes them, and bear a comment by which they are
// found again. (Tables of the old iptables, before nftables, are beyond reach.)
const (
	foreignTable = "filter"
	foreignChain = "FORWARD"
)

var foreignFamilies = []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}

func foreignMark(bridge string) string { return "cale " + bridge }

// admit adds the rules where they are needed and missing.
func (s *Store) admit(n *network) {
	for _, family := range foreignFamilies {
		drops, err := nft.Drops(s.filter, family, foreignTable, foreignChain)
		if err == nil && drops {
			err = s.admitIn(n, family)
		}
		if err != nil {
			s.warn("accept packets of network %s in iptables: %v", n.def.Name, err)
		}
	}
}

func (s *Store) admitIn(n *network, family uint8) error {
	bridges := []string{n.def.Bridge}
	for i := range n.full {
		bridges = append(bridges, overflowName(n.def.Bridge, i))
	}
	b := nft.Batch{Table: foreignTable, Family: family}
	add := func(bridge string, match ...nft.Expr) {
		b.InsertMarked(foreignChain, foreignMark(bridge), append(match, nft.Counter(), nft.Accept())...)
	}
	in := func(name string) []nft.Expr {
		return []nft.Expr{nft.Meta(unix.NFT_META_IIFNAME, nft.R(0)), nft.Equal(nft.R(0), nft.Name(name))}
	}
	out := func(name string) []nft.Expr {
		return []nft.Expr{nft.Meta(unix.NFT_META_OIFNAME, nft.R(0)), nft.Equal(nft.R(0), nft.Name(name))}
	}
	for _, name := range bridges {
		have, err := nft.Marked(s.filter, family, foreignTable, foreignChain, foreignMark(name))
		if err != nil {
			return err
		}
		switch {
		case len(have) > 0:
		case n.def.Internal: // with br_netfilter even its inner traffic comes here
			add(name, append(in(name), out(name)...)...)
		default:
			add(name, in(name)...)
			add(name, out(name)...)
		}
	}
	return b.Run(s.filter)
}

// dismiss takes a bridge's rules out again.
func (s *Store) dismiss(bridge string) error {
	for _, family := range foreignFamilies {
		have, err := nft.Marked(s.filter, family, foreignTable, foreignChain, foreignMark(bridge))
		if err != nil {
			return fmt.Errorf("list rules of iptables: %w", err)
		}
		b := nft.Batch{Table: foreignTable, Family: family}
		for _, handle := range have {
			b.DelRule(foreignChain, handle)
		}
		if err := b.Run(s.filter); err != nil {
			return err
		}
	}
	return nil
}
