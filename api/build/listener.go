// Package build serves the build calls of Docker's Engine API, and the Docker
// clients' way to BuildKit's own API, over a builder. The engine passes these
// calls on to the builder's socket, where they and BuildKit's clients arrive.
package build

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"cale/audit"
	"cale/build/handover"
)

// helloWait is how long a client may take for its first bytes.
const helloWait = 30 * time.Second

// Split tells connections of HTTP/2, which are BuildKit's API, from those of
// HTTP/1, which are Docker's, and from command lines by their first bytes.
type Split struct {
	// Lines takes connections that begin with handover.Hello, which has been
	// read of them; nil takes none. It is set before Run.
	Lines  func(net.Conn)
	l      net.Listener
	v1, v2 *queue
}

// NewSplit serves a listener's connections by two others. Run does the work. l
// may be nil: then all connections are those of Dial, and Run is not called.
func NewSplit(l net.Listener) *Split {
	var addr net.Addr = &net.UnixAddr{Name: "builder", Net: "unix"}
	if l != nil {
		addr = l.Addr()
	}
	return &Split{l: l, v1: newQueue(addr), v2: newQueue(addr)}
}

// HTTP1 and HTTP2 are where the connections come out.
func (s *Split) HTTP1() net.Listener { return s.v1 }

// HTTP2 is the other one.
func (s *Split) HTTP2() net.Listener { return s.v2 }

// Run accepts connections until the listener is closed.
func (s *Split) Run() error {
	defer s.v1.Close()
	defer s.v2.Close()
	for {
		c, err := s.l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		go s.sort(c)
	}
}

// sort reads so much that the two can be told apart: HTTP/2 begins with "PRI".
func (s *Split) sort(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(helloWait))
	var b [2]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	if string(b[:]) == handover.Hello && s.Lines != nil {
		s.Lines(c)
		return
	}
	to := s.v1
	if string(b[:]) == "PR" {
		to = s.v2
	}
	to.put(&ahead{Conn: c, rest: b[:]})
}

// Dial is a connection within this process.
func (s *Split) Dial(context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	go s.sort(&audit.For{Conn: there, Peer: audit.Self()})
	return here, nil
}

// DialFor is a connection to BuildKit's API within this process, for whoever
// the audit log is to name.
func (s *Split) DialFor(_ context.Context, p *audit.Peer) (net.Conn, error) {
	here, there := net.Pipe()
	if !s.v2.put(&audit.For{Conn: there, Peer: p}) {
		return nil, net.ErrClosed
	}
	return here, nil
}

// ahead is a connection of which some has been read already.
type ahead struct {
	net.Conn
	rest []byte
}

// NetConn is the connection itself.
func (a *ahead) NetConn() net.Conn { return a.Conn }

// Read implements net.Conn.
func (a *ahead) Read(p []byte) (int, error) {
	if len(a.rest) > 0 {
		n := copy(p, a.rest)
		a.rest = a.rest[n:]
		return n, nil
	}
	return a.Conn.Read(p)
}

// queue is a listener whose connections come from put.
type queue struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (q *queue) put(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.closed:
		c.Close()
		return false
	}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr { return q.addr }
