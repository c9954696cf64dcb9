// Package rtnl speaks rtnetlink: links, addresses and routes.
//
// Sockets are kept open, several requests travel in one datagram, and a
// socket may live in another network namespace than its user, so that setting
// up an interface costs few system calls and no change of namespace.
package rtnl

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a netlink socket bound to the network namespace it was opened in.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte
}

// Open opens a route socket in the calling thread's network namespace.
func Open() (*Conn, error) { return open(unix.NETLINK_ROUTE) }

// OpenNetfilter opens a netfilter socket in the calling thread's namespace.
func OpenNetfilter() (*Conn, error) { return open(unix.NETLINK_NETFILTER) }

func open(proto int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	// Without the echo of the request, acknowledgements have a small, known size.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	// A dump that is filtered by the kernel reads far less.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &Conn{fd: fd}, nil
}

// OpenIn opens a route socket inside the network namespace that the
// descriptor refers to.
func OpenIn(netns int) (c *Conn, err error) {
	err = In(netns, func() error {
		c, err = Open()
		return err
	})
	return c, err
}

// In runs fn with the thread inside another network namespace. fn must not
// start goroutines that matter and must not unlock the thread.
func In(netns int, fn func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(home)
	if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	result := fn()
	if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
		// The thread stays locked: the runtime ends it with this goroutine and
		// nobody else ever runs in the wrong namespace.
		return errors.Join(result, fmt.Errorf("return to own network namespace: %w", err))
	}
	runtime.UnlockOSThread()
	return result
}

// Close closes the socket.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// Error is the kernel's refusal of one request.
type Error struct {
	Index int // which of the messages given to Do
	Errno unix.Errno
	Text  string // the kernel's explanation, often empty
}

func (e *Error) Error() string {
	if e.Text != "" {
		return e.Errno.Error() + ": " + e.Text
	}
	return e.Errno.Error()
}

func (e *Error) Unwrap() error { return e.Errno }

// Do sends the messages in one datagram and waits for all acknowledgements.
// The kernel carries out every message, also those after a failed one; the
// result is the first failure, an *Error.
func (c *Conn) Do(msgs ...*Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return unix.EBADF
	}
	var out []byte
	first := c.seq + 1
	for _, m := range msgs {
		c.seq++
		native.PutUint32(m.b, uint32(len(m.b)))
		native.PutUint16(m.b[6:], native.Uint16(m.b[6:])|unix.NLM_F_ACK)
		native.PutUint32(m.b[8:], c.seq)
		out = append(out, m.b...)
	}
	if err := c.send(out); err != nil {
		return err
	}
	var result *Error
	for left := len(msgs); left > 0; {
		in, err := c.receive()
		if err != nil {
			return err
		}
		each(in, func(h header, body []byte) bool {
			if h.seq-first >= uint32(len(msgs)) || h.typ != unix.NLMSG_ERROR {
				return true
			}
			left--
			if e := parseError(h, body); e != nil {
				e.Index = int(h.seq - first)
				if result == nil || e.Index < result.Index {
					result = e
				}
			}
			return true
		})
	}
	if result != nil {
		return result
	}
	return nil
}

// Dump sends one request and calls fn with the type and body of every
// answer. Body is only valid during the call. A request without
// NLM_F_DUMP among its flags has one answer.
func (c *Conn) Dump(m *Message, fn func(typ uint16, body []byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return unix.EBADF
	}
	c.seq++
	native.PutUint32(m.b, uint32(len(m.b)))
	native.PutUint32(m.b[8:], c.seq)
	dump := native.Uint16(m.b[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	if err := c.send(m.b); err != nil {
		return err
	}
	for {
		in, err := c.receive()
		if err != nil {
			return err
		}
		var result error
		done := false
		each(in, func(h header, body []byte) bool {
			if h.seq != c.seq {
				return true
			}
			switch h.typ {
			case unix.NLMSG_DONE:
				done = true
				if len(body) >= 4 {
					if n := int32(native.Uint32(body)); n < 0 {
						result = &Error{Errno: unix.Errno(-n)}
					}
				}
				return false
			case unix.NLMSG_ERROR:
				done = true
				if e := parseError(h, body); e != nil {
					result = e
				}
				return false
			}
			fn(h.typ, body)
			if !dump {
				done = true
			}
			return true
		})
		if done {
			return result
		}
	}
}

// Batch sends messages that succeed or fail as one, as netfilter's subsystems
// take them: the first and the last message only mark the borders. The result
// is the first failure, an *Error.
func (c *Conn) Batch(msgs ...*Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return unix.EBADF
	}
	var out []byte
	first := c.seq + 1
	for i, m := range msgs {
		c.seq++
		native.PutUint32(m.b, uint32(len(m.b)))
		// Failures are always told. One acknowledgement is enough to know that
		// all went well, and thousands would not fit into the socket's buffer.
		if i == len(msgs)-2 {
			native.PutUint16(m.b[6:], native.Uint16(m.b[6:])|unix.NLM_F_ACK)
		}
		native.PutUint32(m.b[8:], c.seq)
		out = append(out, m.b...)
	}
	if len(out) > 128<<10 {
		// Needs CAP_NET_ADMIN, which whoever sends such messages has.
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(out))
	}
	if err := c.send(out); err != nil {
		return err
	}
	var result *Error
	acknowledged := false
	for {
		// The kernel works inside of send: all answers are there already.
		in, err := c.receiveFlags(unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return err
		}
		each(in, func(h header, body []byte) bool {
			i := int(h.seq - first)
			if i < 0 || i >= len(msgs) || h.typ != unix.NLMSG_ERROR {
				return true
			}
			if e := parseError(h, body); e != nil {
				e.Index = i
				if result == nil || i < result.Index {
					result = e
				}
			}
			acknowledged = true
			return true
		})
	}
	if result != nil {
		return result
	}
	if !acknowledged {
		return errors.New("netlink: the kernel did not answer")
	}
	return nil
}

func (c *Conn) send(b []byte) error {
	for {
		err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			if err != nil {
				return fmt.Errorf("netlink send: %w", err)
			}
			return nil
		}
	}
}

func (c *Conn) receive() ([]byte, error) { return c.receiveFlags(0) }

func (c *Conn) receiveFlags(flags int) ([]byte, error) {
	if c.buf == nil {
		c.buf = make([]byte, 32<<10) // the kernel never builds larger dump pieces
	}
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, flags)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("netlink receive: %w", err)
		}
		return c.buf[:n], nil
	}
}

type header struct {
	typ, flags uint16
	seq        uint32
}

func each(b []byte, fn func(header, []byte) bool) {
	for len(b) >= unix.NLMSG_HDRLEN {
		n := int(native.Uint32(b))
		if n < unix.NLMSG_HDRLEN || n > len(b) {
			return
		}
		h := header{typ: native.Uint16(b[4:]), flags: native.Uint16(b[6:]), seq: native.Uint32(b[8:])}
		if !fn(h, b[unix.NLMSG_HDRLEN:n]) {
			return
		}
		n = (n + 3) &^ 3
		if n > len(b) {
			return
		}
		b = b[n:]
	}
}

// parseError reads an acknowledgement; nil means success.
func parseError(h header, body []byte) *Error {
	if len(body) < 4 {
		return &Error{Errno: unix.EBADMSG}
	}
	n := int32(native.Uint32(body))
	if n == 0 {
		return nil
	}
	e := &Error{Errno: unix.Errno(-n)}
	const capped, tlvs = 0x100, 0x200
	if h.flags&tlvs != 0 {
		at := 4 + unix.NLMSG_HDRLEN
		if h.flags&capped == 0 && len(body) >= 8 {
			at = 4 + (int(native.Uint32(body[4:]))+3)&^3
		}
		if at <= len(body) {
			Attrs(body[at:], func(typ uint16, v []byte) {
				if typ == 1 && len(v) > 0 { // NLMSGERR_ATTR_MSG
					e.Text = string(v[:len(v)-1])
				}
			})
		}
	}
	return e
}

func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
