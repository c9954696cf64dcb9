package stdio

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// The attach protocol: the client sends one line of JSON (Hello), the server
// answers "ok\n" or "error: text\n". Then frames with Docker's 8-byte header
// (stream, 0, 0, 0, length as 32 bit big endian) come from the server, and raw
// input goes to it. The client's half-close ends the input; the server closes
// when the process's output has ended.

const (
	frameHeader = 8
	// maxHello bounds the first line, in either direction.
	maxHello     = 4 << 10
	helloTimeout = 30 * time.Second
	// maxFrame bounds what a client accepts as one frame.
	maxFrame = 1 << 20
)

// Hello opens an attach connection: which process and which of its streams.
type Hello struct {
	// Container is the container's id, for shims that hold several on one
	// socket; "" where there is but one.
	Container string `json:"container,omitempty"`
	// Exec is the exec's id, or "" for the container's init.
	Exec   string `json:"exec,omitempty"`
	Stdin  bool   `json:"stdin,omitempty"`
	Stdout bool   `json:"stdout,omitempty"`
	Stderr bool   `json:"stderr,omitempty"`
}

// Conn is the client's end of one attach.
type Conn struct {
	c    *net.UnixConn
	r    *bufio.Reader
	buf  []byte
	head [frameHeader]byte
}

// Dial attaches to the process h.Exec at the attach socket path.
func Dial(ctx context.Context, path string, h Hello) (*Conn, error) {
	name, done, err := SocketName(path)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	defer done()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", name)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	c := &Conn{c: nc.(*net.UnixConn), r: bufio.NewReaderSize(nc, 32<<10)}
	if err := c.hello(ctx, h); err != nil {
		nc.Close()
		return nil, fmt.Errorf("attach: %w", err)
	}
	return c, nil
}

func (c *Conn) hello(ctx context.Context, h Hello) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(helloTimeout)
	if dl, ok := ctx.Deadline(); ok && dl.Before(deadline) {
		deadline = dl
	}
	stop := context.AfterFunc(ctx, func() { c.c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c.c.SetDeadline(deadline)
	if _, err := c.c.Write(append(b, '\n')); err != nil {
		return err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	if answer := strings.TrimSpace(string(line)); answer != "ok" {
		return errors.New(strings.TrimPrefix(answer, "error: "))
	}
	if !stop() {
		return ctx.Err()
	}
	return c.c.SetDeadline(time.Time{})
}

// Next returns the next piece of output and its stream: 1 stdout, 2 stderr.
// The piece is valid until the next call. io.EOF tells that the process's
// output has ended.
func (c *Conn) Next() (stream byte, p []byte, err error) {
	if _, err := io.ReadFull(c.r, c.head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(c.head[4:]))
	if n > maxFrame {
		return 0, nil, errors.New("attach: frame too large")
	}
	if cap(c.buf) < n {
		c.buf = make([]byte, n)
	}
	p = c.buf[:n]
	if _, err := io.ReadFull(c.r, p); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return c.head[0], p, nil
}

// Raw returns the rest of the output still framed with Docker's 8-byte headers,
// fit for passing on to a Docker client of a process without a terminal.
func (c *Conn) Raw() io.Reader { return c.r }

// Write sends input.
func (c *Conn) Write(p []byte) (int, error) { return c.c.Write(p) }

// CloseWrite tells the end of the input.
func (c *Conn) CloseWrite() error { return c.c.CloseWrite() }

// Close detaches. The process goes on.
func (c *Conn) Close() error { return c.c.Close() }
