package network

import (
	"fmt"
	"net/netip"
)

// pool hands out the addresses of one subnet. It goes round, so that an
// address that was just given back rests as long as possible: peers may still
// have it in their caches.
type pool struct {
	subnet netip.Prefix
	within netip.Prefix // addresses are chosen from here
	last   netip.Addr
	used   map[netip.Addr]bool
}

func newPool(subnet, within netip.Prefix) *pool {
	if !within.IsValid() {
		within = subnet
	}
	p := &pool{subnet: subnet.Masked(), within: within.Masked(), used: map[netip.Addr]bool{}}
	// The network's own address is nobody's, nor is IPv4's broadcast address.
	if p.subnet.Bits() < p.subnet.Addr().BitLen()-1 {
		p.used[p.subnet.Addr()] = true
		if p.subnet.Addr().Is4() {
			p.used[lastOf(p.subnet)] = true
		}
	}
	return p
}

// take reserves an address: the wanted one, or the next free one.
func (p *pool) take(want netip.Addr) (netip.Addr, error) {
	if want.IsValid() {
		if !p.subnet.Contains(want) {
			return netip.Addr{}, fmt.Errorf("%w address: %s is not in subnet %s", ErrInvalid, want, p.subnet)
		}
		if p.used[want] {
			return netip.Addr{}, fmt.Errorf("address already %w: %s", ErrInUse, want)
		}
		p.used[want] = true
		return want, nil
	}
	a := p.last
	// Among len(used)+1 addresses at least one is free, or the range is full.
	for range len(p.used) + 2 {
		if a = a.Next(); !a.IsValid() || !p.within.Contains(a) {
			a = p.within.Addr()
		}
		if !p.used[a] {
			p.used[a] = true
			p.last = a
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no free address in %s (%d are %w)", p.within, len(p.used), ErrInUse)
}

func (p *pool) give(a netip.Addr) { delete(p.used, a) }

// lastOf returns a prefix's highest address.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// nth returns the address at an offset in a prefix of at least that many
// addresses.
func nth(p netip.Prefix, offset uint32) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	carry := offset
	for i := len(b) - 1; i >= 0 && carry > 0; i-- {
		carry += uint32(b[i])
		b[i] = byte(carry)
		carry >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
