package network

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

// Parts of a connection tracking message, <linux/netfilter/nfnetlink_conntrack.h>.
const (
	ctGet, ctDelete = 1, 2
	ctTupleOrig     = 1
	ctTupleProto    = 2
	ctProtoNum      = 1
	ctProtoDstPort  = 3
)

// flushFlows makes the kernel forget the UDP flows to an endpoint's published
// ports. A flow that began before the port was published, or that went to the
// port's last owner, would otherwise go where it went before for as long as
// the peer goes on sending. TCP needs none of this: a connection ends.
func (s *Store) flushFlows(e *Endpoint) {
	ports := map[uint16]bool{}
	for _, p := range e.Ports {
		if p.Protocol == "udp" {
			ports[p.HostPort] = true
		}
	}
	if len(ports) == 0 {
		return
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var stale []*rtnl.Message
		header := []byte{family, 0, 0, 0}
		m := rtnl.New(unix.NFNL_SUBSYS_CTNETLINK<<8|ctGet, unix.NLM_F_DUMP, header)
		err := s.filter.Dump(m, func(typ uint16, body []byte) {
			if len(body) < 4 {
				return
			}
			rtnl.Attrs(body[4:], func(typ uint16, tuple []byte) {
				if typ == ctTupleOrig && ports[udpPort(tuple)] {
					d := rtnl.New(unix.NFNL_SUBSYS_CTNETLINK<<8|ctDelete, 0, header)
					stale = append(stale, d.Attr(ctTupleOrig|unix.NLA_F_NESTED, tuple))
				}
			})
		})
		if err != nil {
			continue // without connection tracking there is nothing to forget
		}
		for _, d := range stale {
			s.filter.Do(d)
		}
	}
}

// udpPort is a UDP tuple's destination port, 0 for other protocols.
func udpPort(tuple []byte) (port uint16) {
	udp := false
	rtnl.Attrs(tuple, func(typ uint16, v []byte) {
		if typ != ctTupleProto {
			return
		}
		rtnl.Attrs(v, func(typ uint16, v []byte) {
			switch {
			case typ == ctProtoNum && len(v) == 1:
				udp = v[0] == unix.IPPROTO_UDP
			case typ == ctProtoDstPort && len(v) == 2:
				port = binary.BigEndian.Uint16(v)
			}
		})
	})
	if !udp {
		return 0
	}
	return port
}
