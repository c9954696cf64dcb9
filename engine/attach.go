package engine

import (
	"context"
	"io"
	"sync"

	"cale/logfile"
	"cale/shim"
	"cale/shim/stdio"
)

// pendingAttach is a client that came before the process: it is connected between the container's creation and its
// start, so that it sees the first byte.
type pendingAttach struct {
	hello stdio.Hello
	once  sync.Once
	ready chan struct{} // closed when conn or err is there
	conn  *streamLink
	err   error
}

func (p *pendingAttach) settle(conn *streamLink, err error) (taken bool) {
	p.once.Do(func() {
		p.conn, p.err = conn, err
		taken = true
		close(p.ready)
	})
	return taken
}

// fail ends a client's wait: nothing will run.
func (p *pendingAttach) fail() { p.settle(nil, io.EOF) }

// takePending gives the waiting clients and forgets them. c.mu is held.
func (c *container) takePending() []*pendingAttach {
	p := c.pending
	c.pending = nil
	return p
}

// admit connects the waiting clients to a container that is made but not started.
func (e *Engine) admit(ctx context.Context, c *container, r *run) {
	c.mu.Lock()
	pending := c.takePending()
	c.mu.Unlock()
	for _, p := range pending {
		conn, err := linkTo(ctx, c, r, p.hello)
		if !p.settle(conn, err) && conn != nil {
			conn.Close() // the client has left
		}
	}
}

// Attach connects a client to a container's process, also before its start. The Stream then waits for it.
func (e *Engine) Attach(ctx context.Context, ref string, o AttachOptions) (*Stream, error) {
	c, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	var replay LogStream
	if o.Logs {
		replay, _, err = e.Logs(ctx, c.id, LogOptions{Stdout: o.Stdout, Stderr: o.Stderr, Tail: -1})
		if err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	s := &c.rec.Spec
	hello := stdio.Hello{Stdin: o.Stdin && s.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr}
	tty, r, status := s.TTY, c.run, c.rec.State.Status
	var p *pendingAttach
	switch {
	case status == Paused:
		c.mu.Unlock()
		return nil, conflict("container %s is paused, unpause the container before attach", ref)
	case c.removing:
		c.mu.Unlock()
		return nil, notFound("No such container: %s", ref)
	case r == nil && o.Stream:
		p = &pendingAttach{hello: hello, ready: make(chan struct{})}
		c.pending = append(c.pending, p)
	}
	c.mu.Unlock()
	e.emit(c, "attach")
	st := &Stream{TTY: tty, detached: func() { e.emit(c, "detach") }}
	switch {
	case !o.Stream:
		st.plug(nil)
	case p != nil:
		st.await(c, p)
	default:
		conn, err := linkTo(ctx, c, r, hello)
		if err != nil {
			select {
			case <-r.done: // it ended just now
				st.plug(nil)
			default:
				if shim.IsNotFound(err) {
					return nil, conflict("container %s is not running", c.id)
				}
				return nil, err
			}
		} else {
			st.plug(conn)
		}
	}
	if replay != nil {
		st.prepend(replay)
	}
	return st, nil
}

// plug connects the stream; without a connection it is at its end.
func (s *Stream) plug(conn *streamLink) {
	if conn == nil {
		s.Reader = eof{}
		s.write = func(p []byte) (int, error) { return 0, io.ErrClosedPipe }
		s.closeWrite = func() error { return nil }
		s.close = s.closeWrite
		return
	}
	s.Reader = conn
	s.write, s.closeWrite, s.close = conn.Write, conn.CloseWrite, conn.Close
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// await connects the stream when the container starts.
func (s *Stream) await(c *container, p *pendingAttach) {
	s.ready = p.ready
	s.Reader = readerFunc(func(b []byte) (int, error) {
		<-p.ready
		if p.err != nil {
			return 0, p.err
		}
		return p.conn.Read(b)
	})
	s.write = func(b []byte) (int, error) {
		<-p.ready
		if p.err != nil {
			return 0, io.ErrClosedPipe
		}
		return p.conn.Write(b)
	}
	s.closeWrite = func() error {
		<-p.ready
		if p.err != nil {
			return nil
		}
		return p.conn.CloseWrite()
	}
	s.close = func() error {
		p.fail()
		c.mu.Lock()
		for i, other := range c.pending {
			if other == p {
				c.pending = append(c.pending[:i:i], c.pending[i+1:]...)
				break
			}
		}
		c.mu.Unlock()
		if p.conn != nil {
			return p.conn.Close()
		}
		return nil
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// prepend lets the reader see the log's entries first, as frames.
func (s *Stream) prepend(logs LogStream) {
	var rest []byte
	ended := false
	then := s.Reader
	s.Reader = readerFunc(func(p []byte) (int, error) {
		for len(rest) == 0 && !ended {
			entry, err := logs.Next()
			if err != nil {
				ended = true
				break
			}
			stream := logfile.Stdout
			if entry.Stream == "stderr" {
				stream = logfile.Stderr
			}
			rest = frame(byte(stream), entry.Line)
		}
		if len(rest) > 0 {
			n := copy(p, rest)
			rest = rest[n:]
			return n, nil
		}
		return then.Read(p)
	})
	end := s.close
	s.close = func() error {
		logs.Close()
		return end()
	}
}

// frame puts Docker's header before a piece of output.
func frame(stream byte, p []byte) []byte {
	n := len(p)
	return append([]byte{stream, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, p...)
}

// Resize sets the size of a container's terminal.
func (e *Engine) Resize(ctx context.Context, ref string, height, width uint) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	r, err := c.running()
	if err != nil {
		return err
	}
	if err := r.shim.Resize(ctx, c.id, "", uint32(width), uint32(height)); err != nil {
		if gone(err) {
			return conflict("container %s is not running", c.id)
		}
		return err
	}
	e.emit(c, "resize")
	return nil
}
