package engine

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync"
	"time"

	"cale/shim"
	"cale/shim/stdio"
)

// streamLink connects a client to a process's streams. When the supervisor dies it goes on with the one that takes
// over: the client sees nothing of it.
type streamLink struct {
	c     *container
	r     *run
	hello stdio.Hello

	mu     sync.Mutex
	conn   *stdio.Conn
	died   <-chan struct{} // closed when the supervisor that conn leads to is gone
	half   bool            // the client has ended its input
	closed bool
}

// linkTo connects to a process of a run.
func linkTo(ctx context.Context, c *container, r *run, h stdio.Hello) (*streamLink, error) {
	h.End = true
	died := r.shim.Done()
	conn, err := stdio.Dial(ctx, c.attachSocket(), h)
	if err != nil {
		return nil, err
	}
	return &streamLink{c: c, r: r, hello: h, conn: conn, died: died}, nil
}

func (c *container) attachSocket() string { return filepath.Join(c.pod, "attach.sock") }

func (l *streamLink) current() *stdio.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// deathTold is how long it may take until the end of a supervisor is seen at its other connection too.
const deathTold = 2 * time.Second

// anew connects anew after a connection broke; false when there is nothing to connect to any more, or the supervisor is
// alive: it has dropped a client that took too long, which is to learn that output is missing.
func (l *streamLink) anew(broken *stdio.Conn) bool {
	l.mu.Lock()
	now, died, closed := l.conn, l.died, l.closed
	l.mu.Unlock()
	if closed || now != broken {
		return !closed
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	st, err := l.r.shim.State(ctx, l.c.id, l.hello.Exec)
	if err != nil || st.Status == shim.StatusStopped {
		return false
	}
	select {
	case <-died:
	case <-time.After(deathTold):
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.conn != broken {
		return !l.closed
	}
	died = l.r.shim.Done()
	conn, err := stdio.Dial(ctx, l.c.attachSocket(), l.hello)
	if err != nil {
		return false
	}
	broken.Close()
	l.conn, l.died = conn, died
	if l.half {
		_ = conn.CloseWrite()
	}
	return true
}

// Read implements io.Reader.
func (l *streamLink) Read(p []byte) (int, error) {
	for {
		conn := l.current()
		n, err := conn.Read(p)
		if !errors.Is(err, stdio.ErrLost) {
			return n, err
		}
		if !l.anew(conn) {
			return n, io.EOF
		}
	}
}

// Write implements io.Writer.
func (l *streamLink) Write(p []byte) (written int, err error) {
	for {
		conn := l.current()
		n, err := conn.Write(p[written:])
		written += n
		if err == nil || !l.anew(conn) {
			return written, err
		}
	}
}

// CloseWrite tells the end of the input.
func (l *streamLink) CloseWrite() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.half = true
	return l.conn.CloseWrite()
}

// Close detaches. The process goes on.
func (l *streamLink) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return l.conn.Close()
}
