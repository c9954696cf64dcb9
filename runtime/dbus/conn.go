package dbus

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

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
}

// Error is a call's error answer.
type Error struct{ Name, Text string }

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Name
	}
	return e.Text
}

// Conn is a connection, for one goroutine.
type Conn struct {
	c      *os.File
	r      *bufio.Reader
	serial uint32
	// Name is what the bus calls us; "" without a bus.
	Name    string
	signals []*Message
}

// Dial connects to a Unix socket as a user. With bus, it is a bus that wants to be greeted, not the other side itself.
func Dial(path string, uid int, bus bool, deadline time.Time) (*Conn, error) {
	// Without package net, which a start would feel.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "connect to", Path: path, Err: err}
	}
	nc := os.NewFile(uintptr(fd), path)
	c := &Conn{c: nc, r: bufio.NewReader(nc)}
	nc.SetDeadline(deadline)
	if err := c.authenticate(uid); err != nil {
		nc.Close()
		return nil, fmt.Errorf("authenticate at %s: %w", path, err)
	}
	if bus {
		out, err := c.Call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", "")
		if err == nil && len(out) == 1 {
			c.Name, _ = out[0].(string)
		}
		if err != nil {
			nc.Close()
			return nil, fmt.Errorf("greet the bus at %s: %w", path, err)
		}
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.c.Close() }

// SetDeadline bounds all that follows.
func (c *Conn) SetDeadline(t time.Time) { c.c.SetDeadline(t) }

// authenticate says who we are by the socket's credentials ("Authentication Protocol", EXTERNAL).
func (c *Conn) authenticate(uid int) error {
	if _, err := io.WriteString(c.c, "\x00AUTH EXTERNAL "+hex.EncodeToString([]byte(strconv.Itoa(uid)))+"\r\n"); err != nil {
		return err
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "OK ") {
		return fmt.Errorf("refused: %s", strings.TrimSpace(line))
	}
	_, err = io.WriteString(c.c, "BEGIN\r\n")
	return err
}

// Call calls a method and returns its results. Signals that come meanwhile are kept for Signal.
func (c *Conn) Call(dest, path, iface, member, sig string, args ...any) ([]any, error) {
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
			if len(c.signals) < 1000 {
				c.signals = append(c.signals, m)
			}
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

// Signal waits for the next signal that match takes.
func (c *Conn) Signal(match func(*Message) bool) (*Message, error) {
	for {
		var m *Message
		if len(c.signals) > 0 {
			m, c.signals = c.signals[0], c.signals[1:]
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

func (c *Conn) receive() (*Message, error) {
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
	body, fields := bo.Uint32(head[4:]), bo.Uint32(head[12:])
	if body > maxMessage || fields > maxMessage {
		return nil, fmt.Errorf("dbus: a message of %d bytes", uint64(body)+uint64(fields))
	}
	rest := make([]byte, (fields+7)/8*8+body)
	if _, err := io.ReadFull(c.r, rest); err != nil {
		return nil, err
	}
	return decode(append(head, rest...), bo)
}

// decode reads a whole message.
func decode(b []byte, bo binary.ByteOrder) (*Message, error) {
	r := &reader{b: b, at: 4, order: bo}
	head, err := r.values("uua(yv)", 0)
	if err != nil {
		return nil, err
	}
	m := &Message{kind: b[1], serial: head[1].(uint32)}
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
	if err := r.align(8); err != nil {
		return nil, err
	}
	// The body's alignment starts anew, which is the same: it begins at a multiple of 8.
	if m.Body, err = r.values(m.bodySignature, 0); err != nil {
		return nil, err
	}
	return m, nil
}
