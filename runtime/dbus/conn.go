package dbus

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Error is a call's error answer.
type Error struct{ Name, Text string }

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Name
	}
	return e.Text
}

// Conn is a connection to one peer, for one goroutine. Through a bus it is to the owner of a name: anyone may send to us
// there, so nothing is believed but what the bus says comes from that owner, or from the bus itself.
type Conn struct {
	c      *os.File
	r      *bufio.Reader
	serial uint32
	// bus says there is one in between, and peer is the peer's unique name on it; "" for whoever answers.
	bus  bool
	peer string
	// watched is what signals are kept for Signal; nil for none.
	watched *watch
	kept    []*Message
	keptLen int // bytes of all that are kept
}

type watch struct{ path, iface, member string }

// The bus's own names (D-Bus specification, "Message Bus Messages").
const (
	busName = "org.freedesktop.DBus"
	busPath = "/org/freedesktop/DBus"
)

// Dial connects to a Unix socket. With a name, that is a bus's, and the connection to the name's owner; without, it is
// the peer's own.
func Dial(path, name string, deadline time.Time) (*Conn, error) {
	c, err := dial(path, name != "", deadline)
	if err != nil || name == "" {
		return c, err
	}
	c.peer = busName // till then nobody else is believed either
	owner, err := c.text("GetNameOwner", "s", name)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("find %s at %s: %w", name, path, err)
	}
	c.peer = owner
	return c, nil
}

// dial connects, and greets the bus.
func dial(path string, bus bool, deadline time.Time) (*Conn, error) {
	nc, err := connect(path, deadline)
	if err != nil {
		return nil, &os.PathError{Op: "connect to", Path: path, Err: err}
	}
	c := &Conn{c: nc, r: bufio.NewReader(nc), bus: bus}
	nc.SetDeadline(deadline)
	if err := c.authenticate(); err != nil {
		nc.Close()
		return nil, fmt.Errorf("authenticate at %s: %w", path, err)
	}
	if bus {
		if _, err := c.text("Hello", ""); err != nil {
			nc.Close()
			return nil, fmt.Errorf("greet the bus at %s: %w", path, err)
		}
	}
	return c, nil
}

// connect is without package net, which a start would feel.
func connect(path string, deadline time.Time) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	for {
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN && time.Now().Before(deadline):
			// As many as may wait to be accepted do (unix(7)), which nothing tells the end of.
			time.Sleep(5 * time.Millisecond)
			continue
		case err == unix.EAGAIN:
			err = os.ErrDeadlineExceeded
		}
		unix.Close(fd)
		return nil, err
	}
}

// Close ends the connection.
func (c *Conn) Close() error { return c.c.Close() }

// SetDeadline bounds all that follows.
func (c *Conn) SetDeadline(t time.Time) { c.c.SetDeadline(t) }

// authenticate has the other side take us for whom the socket's credentials say ("Authentication Protocol", EXTERNAL).
// No user is named: from inside a user namespace that number is another one over there.
func (c *Conn) authenticate() error {
	line, err := c.say("\x00AUTH EXTERNAL\r\n")
	if err == nil && line == "DATA" {
		line, err = c.say("DATA\r\n")
	}
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "OK ") {
		return fmt.Errorf("refused: %s", line)
	}
	_, err = io.WriteString(c.c, "BEGIN\r\n")
	return err
}

// say sends a line before the messages begin, and returns the answer's.
func (c *Conn) say(line string) (string, error) {
	if _, err := io.WriteString(c.c, line); err != nil {
		return "", err
	}
	answer, err := c.r.ReadSlice('\n') // bounded by the buffer
	return strings.TrimSpace(string(answer)), err
}

// Call calls a method of the peer's and returns its results.
func (c *Conn) Call(path, iface, member, sig string, args ...any) ([]any, error) {
	return c.call(c.peer, path, iface, member, sig, args...)
}

// text calls a method of the bus's that answers with a text.
func (c *Conn) text(member, sig string, args ...any) (string, error) {
	out, err := c.call(busName, busPath, busName, member, sig, args...)
	if err != nil {
		return "", err
	}
	if len(out) == 1 {
		if s, ok := out[0].(string); ok {
			return s, nil
		}
	}
	return "", errBadBytes
}

func (c *Conn) call(dest, path, iface, member, sig string, args ...any) ([]any, error) {
	c.serial++
	serial := c.serial
	m := &Message{kind: methodCall, serial: serial, Path: path, Interface: iface, Member: member, Destination: dest, bodySignature: sig, Body: args}
	if err := c.send(m); err != nil {
		return nil, err
	}
	for {
		m, err := c.receive()
		if err != nil {
			return nil, err
		}
		switch {
		case m.kind == signal:
			c.keep(m)
		case m.reply != serial:
		case m.kind == errorReply:
			e := &Error{Name: m.ErrorName}
			if len(m.Body) > 0 {
				e.Text, _ = m.Body[0].(string)
			}
			return nil, e
		case m.kind == methodReturn:
			return m.Body, nil
		}
	}
}

// Watch begins to keep the peer's signals of one name.
func (c *Conn) Watch(path, iface, member string) error {
	if c.bus {
		rule := "type='signal',sender='" + c.peer + "',path='" + path + "',interface='" + iface + "',member='" + member + "'"
		if _, err := c.call(busName, busPath, busName, "AddMatch", "s", rule); err != nil {
			return err
		}
	}
	c.watched = &watch{path, iface, member}
	return nil
}

// keep keeps a signal that comes while something else is waited for. Of too many the first go: what is waited for next
// is of what has been asked just now.
func (c *Conn) keep(m *Message) {
	c.kept = append(c.kept, m)
	for c.keptLen += m.size; c.keptLen > maxMessage; c.kept = c.kept[1:] {
		c.keptLen -= c.kept[0].size
	}
}

// Signal waits for the next watched signal that match takes.
func (c *Conn) Signal(match func(*Message) bool) (*Message, error) {
	for {
		var m *Message
		if len(c.kept) > 0 {
			m, c.kept = c.kept[0], c.kept[1:]
			c.keptLen -= m.size
		} else {
			var err error
			if m, err = c.receive(); err != nil {
				return nil, err
			}
		}
		if m.kind == signal && match(m) {
			return m, nil
		}
	}
}

func (c *Conn) send(m *Message) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	_, err = c.c.Write(b)
	return err
}

// receive gives the next message that concerns us.
func (c *Conn) receive() (*Message, error) {
	for {
		if m, err := c.read(); m != nil || err != nil {
			return m, err
		}
	}
}

// read reads one message; nil for one that doesn't concern us, whose body isn't looked at.
func (c *Conn) read() (*Message, error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(c.r, head); err != nil {
		return nil, err
	}
	var bo binary.ByteOrder = binary.LittleEndian
	switch head[0] {
	case 'l':
	case 'B':
		bo = binary.BigEndian
	default:
		return nil, errBadBytes
	}
	body, fields := int(bo.Uint32(head[4:])), int(bo.Uint32(head[12:]))
	if fields > maxSpecified || body > maxSpecified {
		return nil, errBadBytes
	}
	fields = (fields + 7) / 8 * 8
	size := len(head) + fields + body
	skip := func(n int, reason error) (*Message, error) {
		if _, err := c.r.Discard(n); err != nil {
			return nil, err
		}
		if c.bus {
			reason = nil // anyone may send us anything there
		}
		return nil, reason
	}
	if fields > maxMessage {
		return skip(fields+body, errTooLong)
	}
	r := &reader{b: append(head, make([]byte, fields)...), at: 4, order: bo}
	if _, err := io.ReadFull(c.r, r.b[len(head):]); err != nil {
		return nil, err
	}
	m, err := decodeHead(r)
	if err != nil {
		return skip(body, err)
	}
	if !c.trusts(m) || m.kind == signal && !c.wants(m) {
		return skip(body, nil)
	}
	if size > maxMessage {
		return nil, fmt.Errorf("%w: %d bytes", errTooLong, size)
	}
	r.b = append(r.b, make([]byte, body)...)
	if _, err := io.ReadFull(c.r, r.b[len(r.b)-body:]); err != nil {
		return nil, err
	}
	m.size = size
	// The body's alignment starts anew, which is the same: it begins at a multiple of 8.
	m.Body, err = r.values(m.bodySignature, 0)
	return m, err
}

// trusts reports whether a message is the peer's or the bus's. The bus sees to it that senders are true.
func (c *Conn) trusts(m *Message) bool {
	return c.peer == "" || m.Sender == c.peer || m.Sender == busName
}

// wants reports whether a signal is the peer's that is watched for. A rule of the bus's doesn't see to that: it holds
// for what is sent to all, and anyone may send to us alone.
func (c *Conn) wants(m *Message) bool {
	return c.watched != nil && *c.watched == watch{m.Path, m.Interface, m.Member} && (c.peer == "" || m.Sender == c.peer)
}
