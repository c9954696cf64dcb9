package dbus

import "time"

// The answering side. Only tests have it, which stand for systemd.

// Serve connects to a bus as a name's owner; with an empty one, as anyone.
func Serve(path, name string, deadline time.Time) (*Conn, error) {
	c, err := dial(path, true, deadline)
	if err != nil || name == "" {
		return c, err
	}
	if _, err = c.call(busName, busPath, busName, "RequestName", "su", name, uint32(0)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

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

// Emit sends a signal, to one that a name says or to all that have a rule for it.
func (c *Conn) Emit(dest, path, iface, member, sig string, args ...any) error {
	c.serial++
	return c.send(&Message{kind: signal, serial: c.serial, Destination: dest, Path: path, Interface: iface, Member: member, bodySignature: sig, Body: args})
}

// Flush returns when the bus has taken all that was sent.
func (c *Conn) Flush() error {
	_, err := c.text("GetId", "")
	return err
}
