package network

import (
	"net/netip"

	"cale/network/rtnl"
)

var resolverAddr = netip.AddrFrom4([4]byte{127, 0, 0, 11})

type names struct{ store *Store }

func newNames(s *Store) *names                                                        { return &names{s} }
func (d *names) close()                                                               {}
func (d *names) serve(n *network) error                                               { return nil }
func (d *names) serves(n *network) bool                                               { return false }
func (d *names) stop(n *network)                                                      {}
func (d *names) publish(n *network, c content)                                        {}
func (d *names) redirect(n *network, e *Endpoint, ns int, in *rtnl.Conn, i int) error { return nil }
