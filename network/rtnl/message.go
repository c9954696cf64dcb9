package rtnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

// Message is one netlink request under construction.
type Message struct {
	b []byte
}

// New starts a message: its type, its flags besides REQUEST and ACK, and its
// fixed header.
func New(typ uint16, flags uint16, header []byte) *Message {
	m := &Message{b: make([]byte, unix.NLMSG_HDRLEN, 256)}
	native.PutUint16(m.b[4:], typ)
	native.PutUint16(m.b[6:], flags|unix.NLM_F_REQUEST)
	m.b = append(m.b, header...)
	m.pad()
	return m
}

func (m *Message) pad() {
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

// Attr appends an attribute. Values longer than the 16-bit length allows
// cannot be built: they would silently become something else.
func (m *Message) Attr(typ uint16, value []byte) *Message {
	if len(value)+4 > 0xffff {
		panic("rtnl: attribute too long")
	}
	m.b = native.AppendUint16(m.b, uint16(4+len(value)))
	m.b = native.AppendUint16(m.b, typ)
	m.b = append(m.b, value...)
	m.pad()
	return m
}

// String appends a NUL-terminated string.
func (m *Message) String(typ uint16, s string) *Message {
	return m.Attr(typ, append([]byte(s), 0))
}

// Uint32 appends a number in the machine's byte order.
func (m *Message) Uint32(typ uint16, v uint32) *Message {
	return m.Attr(typ, native.AppendUint32(nil, v))
}

// Uint8 appends a byte.
func (m *Message) Uint8(typ uint16, v uint8) *Message { return m.Attr(typ, []byte{v}) }

// Nest appends an attribute that holds what fill appends.
func (m *Message) Nest(typ uint16, fill func()) *Message {
	at := len(m.b)
	m.b = append(m.b, 0, 0, 0, 0)
	native.PutUint16(m.b[at+2:], typ|unix.NLA_F_NESTED)
	fill()
	if len(m.b)-at > 0xffff {
		panic("rtnl: attribute too long")
	}
	native.PutUint16(m.b[at:], uint16(len(m.b)-at))
	return m
}

// Raw appends bytes as they are, such as the header inside a nested peer.
func (m *Message) Raw(b []byte) *Message {
	m.b = append(m.b, b...)
	m.pad()
	return m
}

// Attrs calls fn for each attribute in b. Nested and byte order flags are
// taken off the type. It stops at the first malformed one.
func Attrs(b []byte, fn func(typ uint16, value []byte)) {
	for len(b) >= 4 {
		n := int(native.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		fn(native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n])
		n = (n + 3) &^ 3
		if n > len(b) {
			return
		}
		b = b[n:]
	}
}
