package nft

import (
	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

// Expr is one step of a rule. Steps pass values in registers: R(0) to R(15)
// are four bytes each, longer values occupy several in a row.
type Expr struct {
	name string
	data func(m *rtnl.Message)
}

// R is the number of the n-th four-byte register.
func R(n int) uint32 { return unix.NFT_REG32_00 + uint32(n) }

// Meta loads a property of the packet, unix.NFT_META_….
func Meta(key, reg uint32) Expr {
	return Expr{"meta", func(m *rtnl.Message) {
		m.Attr(unix.NFTA_META_DREG, be32(reg)).Attr(unix.NFTA_META_KEY, be32(key))
	}}
}

// Payload loads bytes of a header, unix.NFT_PAYLOAD_….
func Payload(base, offset, length, reg uint32) Expr {
	return Expr{"payload", func(m *rtnl.Message) {
		m.Attr(unix.NFTA_PAYLOAD_DREG, be32(reg)).Attr(unix.NFTA_PAYLOAD_BASE, be32(base))
		m.Attr(unix.NFTA_PAYLOAD_OFFSET, be32(offset)).Attr(unix.NFTA_PAYLOAD_LEN, be32(length))
	}}
}

// Addr loads the packet's source or destination address; the rule must have
// made sure of the family.
func Addr(v6, dst bool, reg uint32) Expr {
	offset, length := uint32(12), uint32(4)
	if v6 {
		offset, length = 8, 16
	}
	if dst {
		offset += length
	}
	return Payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, length, reg)
}

// DstPort loads the destination port of TCP, UDP or SCTP.
func DstPort(reg uint32) Expr { return Payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg) }

// SrcPort loads the source port.
func SrcPort(reg uint32) Expr { return Payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, reg) }

// Note puts the key that starts in reg into a dynamic set, or renews its time.
func Note(set string, reg uint32) Expr {
	return Expr{"dynset", func(m *rtnl.Message) {
		m.String(unix.NFTA_DYNSET_SET_NAME, set).Attr(unix.NFTA_DYNSET_OP, be32(unix.NFT_DYNSET_OP_UPDATE)).Attr(unix.NFTA_DYNSET_SREG_KEY, be32(reg))
	}}
}

// Dup sends a copy of the packet to an address by a device, whose index is in
// dev. Only tables of one family have it, and not every kernel.
func Dup(addr, dev uint32) Expr {
	return Expr{"dup", func(m *rtnl.Message) {
		m.Attr(unix.NFTA_DUP_SREG_ADDR, be32(addr)).Attr(unix.NFTA_DUP_SREG_DEV, be32(dev))
	}}
}

// Equal goes on only if a register holds the value.
func Equal(reg uint32, value []byte) Expr { return compare(unix.NFT_CMP_EQ, reg, value) }

// NotEqual goes on only if it does not.
func NotEqual(reg uint32, value []byte) Expr { return compare(unix.NFT_CMP_NEQ, reg, value) }

func compare(op, reg uint32, value []byte) Expr {
	return Expr{"cmp", func(m *rtnl.Message) {
		m.Attr(unix.NFTA_CMP_SREG, be32(reg)).Attr(unix.NFTA_CMP_OP, be32(op))
		m.Nest(unix.NFTA_CMP_DATA, func() { m.Attr(unix.NFTA_DATA_VALUE, value) })
	}}
}

// Mask keeps some bits of a register.
func Mask(reg uint32, mask []byte) Expr {
	return Expr{"bitwise", func(m *rtnl.Message) {
		m.Attr(unix.NFTA_BITWISE_SREG, be32(reg)).Attr(unix.NFTA_BITWISE_DREG, be32(reg))
		m.Attr(unix.NFTA_BITWISE_LEN, be32(uint32(len(mask))))
		m.Nest(unix.NFTA_BITWISE_MASK, func() { m.Attr(unix.NFTA_DATA_VALUE, mask) })
		m.Nest(unix.NFTA_BITWISE_XOR, func() { m.Attr(unix.NFTA_DATA_VALUE, make([]byte, len(mask))) })
	}}
}

// In goes on only if a set has the key that starts in reg.
func In(set string, reg uint32) Expr { return lookup(set, reg, 0, false) }

// NotIn goes on only if it has not.
func NotIn(set string, reg uint32) Expr { return lookup(set, reg, unix.NFT_LOOKUP_F_INV, false) }

// Map goes on only if a map has the key, and puts its data from R(0) on.
func Map(set string, reg uint32) Expr { return lookup(set, reg, 0, true) }

func lookup(set string, reg, flags uint32, data bool) Expr {
	return Expr{"lookup", func(m *rtnl.Message) {
		m.String(unix.NFTA_LOOKUP_SET, set).Attr(unix.NFTA_LOOKUP_SREG, be32(reg))
		if flags != 0 {
			m.Attr(unix.NFTA_LOOKUP_FLAGS, be32(flags))
		}
		if data {
			m.Attr(unix.NFTA_LOOKUP_DREG, be32(unix.NFT_REG_1))
		}
	}}
}

// ConnTrack loads a property of the connection, unix.NFT_CT_….
func ConnTrack(key, reg uint32) Expr {
	return Expr{"ct", func(m *rtnl.Message) {
		m.Attr(unix.NFTA_CT_DREG, be32(reg)).Attr(unix.NFTA_CT_KEY, be32(key))
	}}
}

// DstType loads what the routing tables say of the destination address,
// unix.RTN_….
func DstType(reg uint32) Expr {
	return Expr{"fib", func(m *rtnl.Message) {
		m.Attr(unix.NFTA_FIB_DREG, be32(reg)).Attr(unix.NFTA_FIB_RESULT, be32(unix.NFT_FIB_RESULT_ADDRTYPE))
		m.Attr(unix.NFTA_FIB_FLAGS, be32(unix.NFTA_FIB_F_DADDR))
	}}
}

// Load puts a value into a register.
func Load(reg uint32, value []byte) Expr {
	return Expr{"immediate", func(m *rtnl.Message) {
		m.Attr(unix.NFTA_IMMEDIATE_DREG, be32(reg))
		m.Nest(unix.NFTA_IMMEDIATE_DATA, func() { m.Attr(unix.NFTA_DATA_VALUE, value) })
	}}
}

// DNAT sends the connection to the address and port in two registers.
func DNAT(v6 bool, addr, port uint32) Expr {
	family := uint32(unix.NFPROTO_IPV4)
	if v6 {
		family = unix.NFPROTO_IPV6
	}
	return Expr{"nat", func(m *rtnl.Message) {
		m.Attr(unix.NFTA_NAT_TYPE, be32(unix.NFT_NAT_DNAT)).Attr(unix.NFTA_NAT_FAMILY, be32(family))
		m.Attr(unix.NFTA_NAT_REG_ADDR_MIN, be32(addr)).Attr(unix.NFTA_NAT_REG_PROTO_MIN, be32(port))
	}}
}

// Masquerade makes the connection come from the outgoing device's address.
func Masquerade() Expr { return Expr{"masq", func(*rtnl.Message) {}} }

// Accept, Drop and Jump end a rule.
func Accept() Expr { return verdict(1, "") }

// Drop throws the packet away.
func Drop() Expr { return verdict(0, "") }

// Jump goes on in another chain, and comes back if that one decides nothing.
func Jump(chain string) Expr { return verdict(unix.NFT_JUMP, chain) }

func verdict(code int32, chain string) Expr {
	return Expr{"immediate", func(m *rtnl.Message) {
		m.Attr(unix.NFTA_IMMEDIATE_DREG, be32(unix.NFT_REG_VERDICT))
		m.Nest(unix.NFTA_IMMEDIATE_DATA, func() {
			m.Nest(unix.NFTA_DATA_VERDICT, func() {
				m.Attr(unix.NFTA_VERDICT_CODE, be32(uint32(code)))
				if chain != "" {
					m.String(unix.NFTA_VERDICT_CHAIN, chain)
				}
			})
		})
	}}
}
