package dbus

// The answering side. Only tests have it, which stand for systemd.

// Next waits for the next call.
func (c *Conn) Next() (*Message, error) {
	for {
		m, err := c.receive()
		if err != nil || m.kind == methodCall {
			return m, err
		}
	}
}

// Reply answers a call.
func (c *Conn) Reply(to *Message, sig string, results ...any) error {
	c.serial++
	return c.send(&Message{kind: methodReturn, serial: c.serial, reply: to.serial, Destination: to.Sender, bodySignature: sig, Body: results})
}

// Refuse answers a call with an error.
func (c *Conn) Refuse(to *Message, e *Error) error {
	c.serial++
	return c.send(&Message{kind: errorReply, serial: c.serial, reply: to.serial, Destination: to.Sender, ErrorName: e.Name,
		bodySignature: "s", Body: []any{e.Text}})
}

// Emit sends a signal.
func (c *Conn) Emit(path, iface, member, sig string, args ...any) error {
	c.serial++
	return c.send(&Message{kind: signal, serial: c.serial, Path: path, Interface: iface, Member: member, bodySignature: sig, Body: args})
}
