// Package handover gives a command line to a program that already runs: that
// one carries it out with the files of the process that it was written in, and
// has neither to be loaded nor to connect to itself.
package handover

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"cale/audit"
)

// Hello is how such a connection begins, by which it is told from others.
const Hello = "->"

const (
	maxLine = 8 << 20 // bytes of a Line, as JSON
	wait    = 30 * time.Second
)

// Line is a command line and what is around it. Version is the program's, as
// two of different builds need not understand each other.
type Line struct {
	Version   string
	Args, Env []string
	Dir       string // the current directory, an absolute path
}

// Answers of whoever is asked.
const (
	refused = 'n'
	taken   = 'y'
)

// Offer asks the program at a socket to carry a command line out; the root
// directory, standard output and standard error are this process's own. It
// returns once that is done, with the exit status. Whatever isn't taken (ok is
// false) has to be done here. ctx ends what the other one does.
func Offer(ctx context.Context, socket string, l Line) (code int, ok bool) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, false
	}
	c := conn.(*net.UnixConn)
	defer c.Close()
	if !send(c, l) {
		return 0, false
	}
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != taken {
		return 0, false
	}
	defer context.AfterFunc(ctx, func() { _ = c.CloseWrite() })()
	if _, err := io.ReadFull(c, b[:]); err != nil {
		fmt.Fprintln(os.Stderr, "cale: the builder ended before the build did")
		return 1, true
	}
	return int(b[0]), true
}

func send(c *net.UnixConn, l Line) bool {
	body, err := json.Marshal(l)
	if err != nil || len(body) > maxLine {
		return false
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(root)
	// By itself: descriptors come with the bytes that they were sent with, and
	// these are read before it is known whose they are.
	if _, err := c.Write([]byte(Hello)); err != nil {
		return false
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	if _, _, err := c.WriteMsgUnix(head, unix.UnixRights(root, unix.Stdout, unix.Stderr), nil); err != nil {
		return false
	}
	_, err = c.Write(body)
	return err == nil
}

// Taken is a command line that this process was asked to carry out.
type Taken struct {
	Line
	Root        int // descriptor of the asker's root directory
	Out, Err    *os.File
	Peer        *audit.Peer
	conn        *net.UnixConn
	descriptors []int
}

// Take reads a command line; Hello has been read. It must be closed.
func Take(c *net.UnixConn) (t *Taken, err error) {
	t = &Taken{conn: c, Peer: audit.PeerOf(c)}
	defer func() {
		if err != nil {
			t.Refuse()
			t = nil
		}
	}()
	if t.Peer == nil || t.Peer.UID != uint32(os.Geteuid()) {
		return t, errors.New("a command line of another user")
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	defer c.SetReadDeadline(time.Time{})
	var head [4]byte
	if err := t.head(head[:]); err != nil {
		return t, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxLine {
		return t, fmt.Errorf("a command line of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c, body); err != nil {
		return t, err
	}
	return t, json.Unmarshal(body, &t.Line)
}

// head reads the length of what follows, and the descriptors.
func (t *Taken) head(b []byte) error {
	oob := make([]byte, unix.CmsgSpace(3*4))
	n, oobn, _, _, err := t.conn.ReadMsgUnix(b, oob)
	if err != nil {
		return err
	}
	list, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return err
	}
	for i := range list {
		fds, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			return err
		}
		t.descriptors = append(t.descriptors, fds...)
	}
	if n != len(b) || len(t.descriptors) != 3 {
		return fmt.Errorf("a command line with %d descriptors and %d bytes of length", len(t.descriptors), n)
	}
	t.Root = t.descriptors[0]
	t.Out, t.Err = os.NewFile(uintptr(t.descriptors[1]), "stdout"), os.NewFile(uintptr(t.descriptors[2]), "stderr")
	t.descriptors = t.descriptors[:1]
	return nil
}

// Refuse leaves the command line to whoever asked.
func (t *Taken) Refuse() {
	_, _ = t.conn.Write([]byte{refused})
	t.close()
}

// Accept says that it will be carried out. The context ends when whoever asked
// is gone, or wants it to end.
func (t *Taken) Accept(ctx context.Context) (context.Context, error) {
	if _, err := t.conn.Write([]byte{taken}); err != nil {
		t.close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		var b [1]byte
		_, _ = t.conn.Read(b[:])
		cancel()
	}()
	return ctx, nil
}

// Done gives the exit status.
func (t *Taken) Done(code int) {
	_, _ = t.conn.Write([]byte{byte(code)})
	t.close()
}

func (t *Taken) close() {
	for _, fd := range t.descriptors {
		unix.Close(fd)
	}
	t.descriptors = nil
	if t.Out != nil {
		t.Out.Close()
	}
	if t.Err != nil {
		t.Err.Close()
	}
	t.conn.Close()
}
