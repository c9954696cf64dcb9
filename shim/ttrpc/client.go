package ttrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// errClosed is what calls get whose connection went away.
var errClosed = &Status{Code: Unavailable, Message: "ttrpc: the connection to the shim is closed"}

// Client makes calls over one connection. It is safe for concurrent use.
type Client struct {
	conn net.Conn

	write sync.Mutex // one frame at a time

	mu      sync.Mutex
	next    uint32
	pending map[uint32]chan response
	closed  bool
	done    chan struct{}
}

// NewClient takes over conn and starts to read answers from it.
func NewClient(conn net.Conn) *Client {
	c := &Client{conn: conn, next: 1, pending: make(map[uint32]chan response), done: make(chan struct{})}
	go c.read()
	return c
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection; calls under way fail with Unavailable.
func (c *Client) Close() error {
	err := c.conn.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Call makes one call and returns the answer's message. Errors are *Status, or
// the context's when it ended first.
func (c *Client) Call(ctx context.Context, service, method string, payload []byte) ([]byte, error) {
	r := request{service: service, method: method, payload: payload}
	if dl, ok := ctx.Deadline(); ok {
		r.timeout = time.Until(dl)
		if r.timeout <= 0 {
			return nil, context.DeadlineExceeded
		}
	}
	data := r.append(nil)
	if len(data) > MaxMessage {
		return nil, ErrTooLarge
	}
	answer := make(chan response, 1)
	stream, err := c.register(answer)
	if err != nil {
		return nil, err
	}
	defer c.forget(stream)

	c.write.Lock()
	c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err = c.conn.Write(appendFrame(make([]byte, 0, headerSize+len(data)), stream, typeRequest, data))
	c.write.Unlock()
	if err != nil {
		c.conn.Close()
		return nil, errClosed
	}
	select {
	case resp := <-answer:
		return finish(resp)
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.done:
		// The answer may have come just before the end.
		select {
		case resp := <-answer:
			return finish(resp)
		default:
			return nil, errClosed
		}
	}
}

func finish(r response) ([]byte, error) {
	if r.status != nil && r.status.Code != OK {
		return nil, r.status
	}
	return r.payload, nil
}

func (c *Client) register(answer chan response) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, errClosed
	}
	stream := c.next
	c.next += 2
	c.pending[stream] = answer
	return stream, nil
}

func (c *Client) forget(stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, stream)
}

func (c *Client) read() {
	defer func() {
		c.conn.Close()
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		close(c.done)
	}()
	var hbuf [headerSize]byte
	for {
		h, err := readHeader(c.conn, &hbuf)
		if err != nil {
			return
		}
		data := make([]byte, h.length)
		if _, err := io.ReadFull(c.conn, data); err != nil {
			return
		}
		if h.kind != typeResponse {
			continue
		}
		var r response
		if err := r.unmarshal(data); err != nil {
			r = response{status: &Status{Code: Internal, Message: "ttrpc: malformed response"}}
		}
		c.mu.Lock()
		answer := c.pending[h.stream]
		delete(c.pending, h.stream)
		c.mu.Unlock()
		if answer != nil {
			answer <- r
		}
	}
}
