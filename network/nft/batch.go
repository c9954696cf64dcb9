// Package nft changes nftables by netlink, one transaction at a time. It
// knows what this project's rules need and no more.
package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

// Batch collects changes. Run makes all of them or none.
type Batch struct {
	Table  string // every change is inside this table
	Family uint8  // unix.NFPROTO_…; 0 is inet
	msgs   []*rtnl.Message
	setID  uint32
}

var big = binary.BigEndian

func be32(v uint32) []byte { return big.AppendUint32(nil, v) }

// header is struct nfgenmsg.
func header(family uint8, resource uint16) []byte {
	return big.AppendUint16([]byte{family, 0}, resource)
}

func (b *Batch) add(msg uint16, flags uint16) *rtnl.Message {
	family := b.Family
	if family == 0 {
		family = unix.NFPROTO_INET
	}
	m := rtnl.New(unix.NFNL_SUBSYS_NFTABLES<<8|msg, flags, header(family, 0))
	b.msgs = append(b.msgs, m)
	return m
}

// AddTable makes the table unless it exists.
func (b *Batch) AddTable() {
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE).String(unix.NFTA_TABLE_NAME, b.Table)
}

// DelTable deletes the table with all it holds; it must exist.
func (b *Batch) DelTable() {
	b.add(unix.NFT_MSG_DELTABLE, 0).String(unix.NFTA_TABLE_NAME, b.Table)
}

// Chain describes a chain. One without a Type is only jumped to.
type Chain struct {
	Name     string
	Type     string // "filter" or "nat"
	Hook     uint32 // unix.NF_INET_…
	Priority int32
}

// AddChain makes a chain whose policy is accept.
func (b *Batch) AddChain(c Chain) {
	m := b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE)
	m.String(unix.NFTA_CHAIN_TABLE, b.Table).String(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Type == "" {
		return
	}
	m.Nest(unix.NFTA_CHAIN_HOOK, func() {
		m.Attr(unix.NFTA_HOOK_HOOKNUM, be32(c.Hook))
		m.Attr(unix.NFTA_HOOK_PRIORITY, be32(uint32(c.Priority)))
	})
	m.String(unix.NFTA_CHAIN_TYPE, c.Type)
}

// Kind is a data type of nft(8): its number there, so that the tool can show
// our sets, and its length.
type Kind struct {
	number uint32
	length int
}

// The kinds that sets hold.
var (
	IPv4    = Kind{7, 4}
	IPv6    = Kind{8, 16}
	Proto   = Kind{12, 1}
	Port    = Kind{13, 2}
	IfName  = Kind{41, unix.IFNAMSIZ}
	padding = [4]byte{}
)

// Set describes a set of tuples, or with Data a map from tuples to tuples.
type Set struct {
	Name     string
	Key      []Kind
	Data     []Kind
	Interval bool // of a single kind
	// Dynamic sets are filled by rules (Note); their elements go after Timeout.
	Dynamic bool
	Timeout time.Duration
	Size    uint32 // the most elements; 0 is no bound
}

func concat(kinds []Kind) (number uint32, length int) {
	for _, k := range kinds {
		number = number<<6 | k.number
		length += (k.length + 3) &^ 3
	}
	if len(kinds) == 1 {
		length = kinds[0].length
	}
	return number, length
}

// AddSet makes a set.
func (b *Batch) AddSet(s Set) {
	b.setID++
	var flags uint32
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.Data != nil {
		flags |= unix.NFT_SET_MAP
	}
	if s.Dynamic {
		flags |= unix.NFT_SET_EVAL
	}
	if s.Timeout > 0 {
		flags |= unix.NFT_SET_TIMEOUT
	}
	number, length := concat(s.Key)
	m := b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE)
	m.String(unix.NFTA_SET_TABLE, b.Table).String(unix.NFTA_SET_NAME, s.Name)
	m.Attr(unix.NFTA_SET_FLAGS, be32(flags))
	m.Attr(unix.NFTA_SET_KEY_TYPE, be32(number)).Attr(unix.NFTA_SET_KEY_LEN, be32(uint32(length)))
	m.Attr(unix.NFTA_SET_ID, be32(b.setID))
	if s.Timeout > 0 {
		m.Attr(unix.NFTA_SET_TIMEOUT, big.AppendUint64(nil, uint64(s.Timeout.Milliseconds())))
	}
	if s.Size > 0 {
		m.Nest(unix.NFTA_SET_DESC, func() { m.Attr(unix.NFTA_SET_DESC_SIZE, be32(s.Size)) })
	}
	if s.Data != nil {
		number, length := concat(s.Data)
		m.Attr(unix.NFTA_SET_DATA_TYPE, be32(number)).Attr(unix.NFTA_SET_DATA_LEN, be32(uint32(length)))
	}
}

// Element is a member of a set. Build Key and Data with Tuple.
type Element struct {
	Key  []byte
	Data []byte
	// End marks the first key after an interval.
	End bool
}

// Tuple joins values as the kernel lays them out in registers: each starts at
// a multiple of four bytes.
func Tuple(values ...[]byte) []byte {
	if len(values) == 1 {
		return values[0]
	}
	var t []byte
	for _, v := range values {
		t = append(t, v...)
		t = append(t, padding[:(4-len(v)%4)%4]...)
	}
	return t
}

// Name is an interface name as sets hold it.
func Name(s string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, s)
	return b
}

// AddElements puts elements into a set. One that is there already with the
// same data is no error.
func (b *Batch) AddElements(set string, elements []Element) {
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, set, elements)
}

// DelElements takes elements out; all must be there.
func (b *Batch) DelElements(set string, elements []Element) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, set, elements)
}

func (b *Batch) elements(msg, flags uint16, set string, elements []Element) {
	const atOnce = 400 // an attribute list is limited to 64 KiB
	for len(elements) > 0 {
		n := min(len(elements), atOnce)
		part := elements[:n]
		elements = elements[n:]
		m := b.add(msg, flags)
		m.String(unix.NFTA_SET_ELEM_LIST_TABLE, b.Table).String(unix.NFTA_SET_ELEM_LIST_SET, set)
		m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
			for _, e := range part {
				m.Nest(unix.NFTA_LIST_ELEM, func() {
					if e.End {
						m.Attr(unix.NFTA_SET_ELEM_FLAGS, be32(unix.NFT_SET_ELEM_INTERVAL_END))
					}
					m.Nest(unix.NFTA_SET_ELEM_KEY, func() { m.Attr(unix.NFTA_DATA_VALUE, e.Key) })
					if e.Data != nil {
						m.Nest(unix.NFTA_SET_ELEM_DATA, func() { m.Attr(unix.NFTA_DATA_VALUE, e.Data) })
					}
				})
			}
		})
	}
}

// AddRule appends a rule to a chain.
func (b *Batch) AddRule(chain string, exprs ...Expr) {
	rule(b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND), b.Table, chain, exprs)
}

func rule(m *rtnl.Message, table, chain string, exprs []Expr) {
	m.String(unix.NFTA_RULE_TABLE, table).String(unix.NFTA_RULE_CHAIN, chain)
	m.Nest(unix.NFTA_RULE_EXPRESSIONS, func() {
		for _, e := range exprs {
			m.Nest(unix.NFTA_LIST_ELEM, func() {
				m.String(unix.NFTA_EXPR_NAME, e.name)
				m.Nest(unix.NFTA_EXPR_DATA, func() { e.data(m) })
			})
		}
	})
}

// Run carries the batch out through a netfilter socket.
func (b *Batch) Run(c *rtnl.Conn) error {
	if len(b.msgs) == 0 {
		return nil
	}
	border := header(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	all := append([]*rtnl.Message{rtnl.New(unix.NFNL_MSG_BATCH_BEGIN, 0, border)}, b.msgs...)
	all = append(all, rtnl.New(unix.NFNL_MSG_BATCH_END, 0, border))
	if err := c.Batch(all...); err != nil {
		var e *rtnl.Error
		if errors.As(err, &e) {
			return fmt.Errorf("nftables table %s, change %d: %w", b.Table, e.Index, err)
		}
		return fmt.Errorf("nftables table %s: %w", b.Table, err)
	}
	return nil
}
