package dbus

import "fmt"

// Message types and header fields (D-Bus specification, "Message Format").
const (
	methodCall   = 1
	methodReturn = 2
	errorReply   = 3
	signal       = 4

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldError       = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSender      = 7
	fieldSignature   = 8
)

// Message is what comes and goes.
type Message struct {
	kind                       byte
	serial, reply              uint32
	Path, Interface, Member    string
	ErrorName, Sender          string
	Destination, bodySignature string
	Body                       []any
	size                       int // in bytes, of what was received
}

func (m *Message) encode() ([]byte, error) {
	body, err := appendValues(nil, m.bodySignature, m.Body)
	if err != nil {
		return nil, fmt.Errorf("call of %s: %w", m.Member, err)
	}
	var fields []any
	field := func(code byte, sig, value string) {
		if value != "" {
			fields = append(fields, []any{code, Variant{sig, value}})
		}
	}
	field(fieldPath, "o", m.Path)
	field(fieldInterface, "s", m.Interface)
	field(fieldMember, "s", m.Member)
	field(fieldError, "s", m.ErrorName)
	field(fieldDestination, "s", m.Destination)
	field(fieldSignature, "g", m.bodySignature)
	if m.reply != 0 {
		fields = append(fields, []any{byte(fieldReplySerial), Variant{"u", m.reply}})
	}
	b, err := appendValues([]byte{'l', m.kind, 0, 1}, "uua(yv)", []any{uint32(len(body)), m.serial, fields})
	if err != nil {
		return nil, err
	}
	return append(pad(b, 8), body...), nil
}

// decodeHead reads a message up to its body.
func decodeHead(r *reader) (*Message, error) {
	head, err := r.values("uua(yv)", 0)
	if err != nil {
		return nil, err
	}
	m := &Message{kind: r.b[1], serial: head[1].(uint32)}
	for _, f := range head[2].([]any) {
		pair := f.([]any)
		v := pair[1].(Variant)
		text, isText := v.Value.(string)
		number, isNumber := v.Value.(uint32)
		switch code := pair[0].(byte); {
		case code == fieldPath && isText:
			m.Path = text
		case code == fieldInterface && isText:
			m.Interface = text
		case code == fieldMember && isText:
			m.Member = text
		case code == fieldError && isText:
			m.ErrorName = text
		case code == fieldSender && isText:
			m.Sender = text
		case code == fieldDestination && isText:
			m.Destination = text
		case code == fieldSignature && isText:
			m.bodySignature = text
		case code == fieldReplySerial && isNumber:
			m.reply = number
		}
	}
	return m, r.align(8)
}
