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
	"os"
	"strings"
	"time"
)

// The attach protocol: the client sends one line of JSON (Hello), the server
// answers "ok\n" or "error: text\n". Then frames with Docker's 8-byte header
// (stream, 0, 0, 0, length as 32 bit big endian) come from the server, and raw
// input goes to it. The client's half-close ends the input; the server closes
// when the process's output has ended, after a frame of stream 255 for those who
// asked for it (end): its absence tells that the server died.

const (
	frameHeader = 8
	// maxHello bounds the first line, in either direction.
	maxHello     = 4 << 10
	helloTimeout = 30 * time.Second
	// maxFrame bounds what a client accepts as one frame.
	maxFrame = 1 << 20
	// endStream is the stream of the frame that ends the output.
	endStream = 255
)

// ErrLost tells that the supervisor died before the output ended: whoever took over from it has the rest.
var ErrLost = errors.New("attach: the supervisor is gone")

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
	// End asks for a frame that ends the output.
	End bool `json:"end,omitempty"`
}

// Conn is the client's end of one attach.
type Conn struct {
	c     *net.UnixConn
	r     *bufio.Reader
	end   bool // the end was asked for
	ended bool
	buf   []byte // one frame, with its header
	rest  []byte // of buf: not read yet by Read
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
	c := &Conn{c: nc.(*net.UnixConn), r: bufio.NewReaderSize(nc, 32<<10), end: h.End}
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
// output has ended; where Hello asked for the end, ErrLost that the supervisor
// died before that.
func (c *Conn) Next() (stream byte, p []byte, err error) {
	if err := c.frame(); err != nil {
		return 0, nil, err
	}
	return c.buf[0], c.buf[frameHeader:], nil
}

// Read implements io.Reader: it gives the rest of the output still framed with
// Docker's 8-byte headers, fit for passing on to a Docker client of a process
// without a terminal. What was read when a supervisor died are whole frames.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if err := c.frame(); err != nil {
			return 0, err
		}
		c.rest = c.buf
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// frame reads the next frame into c.buf.
func (c *Conn) frame() error {
	if c.ended {
		return io.EOF
	}
	var head [frameHeader]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return c.cut(err)
	}
	n := int(binary.BigEndian.Uint32(head[4:]))
	if n > maxFrame {
		return errors.New("attach: frame too large")
	}
	if c.end && head[0] == endStream {
		c.ended = true
		return io.EOF
	}
	if cap(c.buf) < frameHeader+n {
		c.buf = make([]byte, frameHeader+n)
	}
	c.buf = append(c.buf[:0], head[:]...)[:frameHeader+n]
	if _, err := io.ReadFull(c.r, c.buf[frameHeader:]); err != nil {
		return c.cut(io.ErrUnexpectedEOF)
	}
	return nil
}

// cut says what an end of the connection means.
func (c *Conn) cut(err error) error {
	if c.end && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrLost
	}
	return err
}

// Write sends input.
func (c *Conn) Write(p []byte) (int, error) { return c.c.Write(p) }

// CloseWrite tells the end of the input.
func (c *Conn) CloseWrite() error { return c.c.CloseWrite() }

// Close detaches. The process goes on.
func (c *Conn) Close() error { return c.c.Close() }
