package dns

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
)

// Types of records that the server itself can answer, RFC 1035 and 3596.
const (
	typeA    = 1
	typePTR  = 12
	typeAAAA = 28

	classIN = 1
)

// Response codes.
const (
	codeOK       = 0
	codeFormat   = 1
	codeServFail = 2
	codeNotImpl  = 4
	codeRefused  = 5
)

const (
	headerLen = 12
	maxUDP    = 512 // what every client takes without asking for more
	ttl       = 10  // seconds: containers come and go
)

var big = binary.BigEndian

// query is a parsed question.
type query struct {
	raw   []byte // header and question as they came
	name  string // lower case, without the final dot
	qtype uint16
	class uint16
}

var errFormat = errors.New("malformed query")

// parse reads a query with one question; anything after it (EDNS) is ignored.
func parse(msg []byte) (query, error) {
	if len(msg) < headerLen || msg[2]&0x80 != 0 || big.Uint16(msg[4:]) != 1 {
		return query{}, errFormat
	}
	var labels []string
	at := headerLen
	for {
		if at >= len(msg) {
			return query{}, errFormat
		}
		n := int(msg[at])
		at++
		if n == 0 {
			break
		}
		// A question that comes first has nothing to point back to.
		if n > 63 || at+n > len(msg) || at+n-headerLen > 254 {
			return query{}, errFormat
		}
		labels = append(labels, string(msg[at:at+n]))
		at += n
	}
	if at+4 > len(msg) {
		return query{}, errFormat
	}
	return query{
		raw: msg[:at+4], name: strings.ToLower(strings.Join(labels, ".")),
		qtype: big.Uint16(msg[at:]), class: big.Uint16(msg[at+2:]),
	}, nil
}

// opcode is 0 for an ordinary query.
func opcode(msg []byte) byte { return msg[2] >> 3 & 15 }

// reply starts an answer: header and question.
func (q query) reply(code byte) []byte {
	b := append([]byte(nil), q.raw...)
	b[2] = 0x80 | b[2]&0x79 | 0x04 // response, same opcode and RD, authoritative
	b[3] = 0x80 | code             // recursion available
	big.PutUint16(b[4:], 1)
	clear(b[6:headerLen])
	return b
}

// answer adds records to the reply until limit bytes are full; then it says
// that it was cut.
func (q query) answer(records [][]byte, limit int) []byte {
	b := q.reply(codeOK)
	count := 0
	for _, data := range records {
		if len(b)+12+len(data) > limit {
			b[2] |= 0x02
			break
		}
		b = append(b, 0xc0, headerLen) // the question's name
		b = big.AppendUint16(b, q.qtype)
		b = big.AppendUint16(b, classIN)
		b = big.AppendUint32(b, ttl)
		b = big.AppendUint16(b, uint16(len(data)))
		b = append(b, data...)
		count++
	}
	big.PutUint16(b[6:], uint16(count))
	return b
}

// failure answers what could not be parsed.
func failure(msg []byte, code byte) []byte {
	if len(msg) < headerLen || msg[2]&0x80 != 0 {
		return nil // never answer an answer
	}
	b := make([]byte, headerLen)
	copy(b, msg[:2])
	b[2], b[3] = 0x80|msg[2]&0x79, 0x80|code
	return b
}

// encodeName writes a name for a record; nil if it cannot be one.
func encodeName(name string) []byte {
	var b []byte
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return nil
		}
		b = append(append(b, byte(len(label))), label...)
	}
	if len(b) > 254 {
		return nil
	}
	return append(b, 0)
}

// reverse reads the address out of a name below in-addr.arpa or ip6.arpa.
func reverse(name string) (netip.Addr, bool) {
	if s, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		part := strings.Split(s, ".")
		if len(part) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(part[3] + "." + part[2] + "." + part[1] + "." + part[0])
		return a, err == nil
	}
	s, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(s) != 63 {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := 31; i >= 0; i-- {
		text.WriteByte(s[2*i])
		if i%4 == 0 && i > 0 {
			text.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(text.String())
	return a, err == nil
}
