package nft

import (
	"errors"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

// What follows looks at, and adds to, tables that belong to somebody else.

// Tables lists the names of all inet tables.
func Tables(c *rtnl.Conn) ([]string, error) {
	var names []string
	m := rtnl.New(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, header(unix.NFPROTO_INET, 0))
	err := c.Dump(m, func(typ uint16, body []byte) {
		if len(body) < 4 || body[0] != unix.NFPROTO_INET {
			return
		}
		rtnl.Attrs(body[4:], func(typ uint16, v []byte) {
			if typ == unix.NFTA_TABLE_NAME && len(v) > 0 {
				names = append(names, string(v[:len(v)-1]))
			}
		})
	})
	return names, err
}

func get(msg, flags uint16, family uint8) *rtnl.Message {
	return rtnl.New(unix.NFNL_SUBSYS_NFTABLES<<8|msg, flags, header(family, 0))
}

// Drops reports whether a base chain exists and its policy is to drop.
func Drops(c *rtnl.Conn, family uint8, table, chain string) (bool, error) {
	m := get(unix.NFT_MSG_GETCHAIN, 0, family).String(unix.NFTA_CHAIN_TABLE, table).String(unix.NFTA_CHAIN_NAME, chain)
	drops := false
	err := c.Dump(m, func(typ uint16, body []byte) {
		if len(body) < 4 {
			return
		}
		rtnl.Attrs(body[4:], func(typ uint16, v []byte) {
			if typ == unix.NFTA_CHAIN_POLICY && len(v) == 4 {
				drops = big.Uint32(v) == 0 // NF_DROP
			}
		})
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return drops, err
}

// Marked returns the handles of a chain's rules that bear a comment.
func Marked(c *rtnl.Conn, family uint8, table, chain, comment string) ([]uint64, error) {
	m := get(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, family).String(unix.NFTA_RULE_TABLE, table).String(unix.NFTA_RULE_CHAIN, chain)
	want := string(userComment(comment))
	var handles []uint64
	err := c.Dump(m, func(typ uint16, body []byte) {
		if len(body) < 4 {
			return
		}
		var handle uint64
		marked := false
		rtnl.Attrs(body[4:], func(typ uint16, v []byte) {
			switch {
			case typ == unix.NFTA_RULE_HANDLE && len(v) == 8:
				handle = big.Uint64(v)
			case typ == unix.NFTA_RULE_USERDATA:
				marked = string(v) == want
			}
		})
		if marked {
			handles = append(handles, handle)
		}
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return handles, err
}

// userComment is a comment as the nft tool and iptables-nft keep it: type,
// length, text with its final zero.
func userComment(s string) []byte {
	return append(append([]byte{0, byte(len(s) + 1)}, s...), 0)
}

// InsertMarked puts a rule with a comment of at most 100 bytes at the head of
// a chain.
func (b *Batch) InsertMarked(chain, comment string, exprs ...Expr) {
	m := b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE)
	rule(m, b.Table, chain, exprs)
	m.Attr(unix.NFTA_RULE_USERDATA, userComment(comment))
}

// DelRule deletes a rule by its handle.
func (b *Batch) DelRule(chain string, handle uint64) {
	m := b.add(unix.NFT_MSG_DELRULE, 0)
	m.String(unix.NFTA_RULE_TABLE, b.Table).String(unix.NFTA_RULE_CHAIN, chain)
	m.Attr(unix.NFTA_RULE_HANDLE, big.AppendUint64(nil, handle))
}

// Counter counts packets; iptables wants one in every rule.
func Counter() Expr { return Expr{"counter", func(*rtnl.Message) {}} }
