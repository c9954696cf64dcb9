// Package stdio moves the input and output of supervised processes: between a
// process's pipes or terminal and log files, fifos and attached clients. Its
// client half (Dial) is what an attach of the engine uses.
package stdio

import (
	"context"
	"errors"
	"io"
)

// Hello opens an attach connection: which process and which of its streams.
type Hello struct {
	// Exec is the exec's id, or "" for the container's init.
	Exec   string `json:"exec,omitempty"`
	Stdin  bool   `json:"stdin,omitempty"`
	Stdout bool   `json:"stdout,omitempty"`
	Stderr bool   `json:"stderr,omitempty"`
}

// URI is a stdio target our shim understands beside fifos and file:// URIs.
// String gives it its text form:
// cale:///?log=PATH&driver=json-file&attach=PATH&…
type URI struct {
	// Log is the path of the log file; "" or Driver "none" for no log.
	Log string
	// Driver is json-file, cri or none ("" is json-file when Log is set).
	Driver string
	// MaxSize in bytes rotates the log (0: never); MaxFile is how many files to
	// keep, the current one included (at least 1).
	MaxSize int64
	MaxFile int
	// Attach is the path of the Unix socket that serves attach.
	Attach string
	// Stdin keeps an input open for attached clients; StdinOnce closes it when
	// the first client that sent input goes away.
	Stdin, StdinOnce bool
	// Attrs are written with every line of a json-file log (Docker's "details").
	Attrs map[string]string
}

var errUnbuilt = errors.New("attach: not built yet")

// String returns the URI's text.
func (u URI) String() string { return "" }

// Conn is the client's end of one attach.
type Conn struct{}

// Dial attaches to the process h.Exec at the attach socket path.
func Dial(ctx context.Context, path string, h Hello) (*Conn, error) { return nil, errUnbuilt }

// Next returns the next piece of output and its stream: 1 stdout, 2 stderr.
// The piece is valid until the next call. io.EOF tells that the process's
// output has ended.
func (c *Conn) Next() (stream byte, p []byte, err error) { return 0, nil, errUnbuilt }

// Raw returns the rest of the output still framed with Docker's 8-byte headers,
// fit for passing on to a Docker client of a process without a terminal.
func (c *Conn) Raw() io.Reader { return nil }

// Write sends input.
func (c *Conn) Write(p []byte) (int, error) { return 0, errUnbuilt }

// CloseWrite tells the end of the input.
func (c *Conn) CloseWrite() error { return errUnbuilt }

// Close detaches. The process goes on.
func (c *Conn) Close() error { return nil }
