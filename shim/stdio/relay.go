package stdio

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"cale/logfile"
)

// bufferSize is one read's worth. Buffers are held only while there is data, so
// a silent process costs none.
const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// terminalGrace is how long a terminal's last output may take from the line
// discipline to the master after the process's end.
const terminalGrace = time.Second

// maxRest bounds what is taken from a stream after the process's end: a pipe can
// hold no more of its output. A child that lives on may write for ever, and
// nobody's exit waits for that.
const maxRest = 1 << 20

// output is one stream from a process to its targets.
type output struct {
	stream logfile.Stream
	src    *os.File // pipe's reading end or the terminal's master
	target *os.File // fifo or file, or nil
	failed bool     // the target takes no more
	done   chan struct{}
	ending atomic.Bool
}

func newOutput(s logfile.Stream) *output {
	return &output{stream: s, done: make(chan struct{})}
}

// relay moves data, after a while, until the stream ends, or it is empty after stop.
func (out *output) relay(o *IO, wait time.Duration) {
	defer close(out.done)
	time.Sleep(wait)
	if out.target != nil {
		// Its reader learns the end of the output from this.
		defer out.target.Close()
	}
	rc, err := out.src.SyscallConn()
	if err != nil {
		return
	}
	for left := maxRest; left > 0; {
		var buf *[bufferSize]byte
		var n int
		read := func(fd uintptr) bool {
			buf = buffers.Get().(*[bufferSize]byte)
			n, err = readFD(int(fd), buf[:])
			if err == unix.EAGAIN {
				buffers.Put(buf)
				buf = nil
				return false
			}
			return true
		}
		if rerr := rc.Read(read); rerr != nil {
			if !errors.Is(rerr, os.ErrDeadlineExceeded) || !out.ending.Load() {
				return // closed
			}
			// The process is dead: take what is there and don't wait.
			if rc.Control(func(fd uintptr) { read(fd) }) != nil || buf == nil {
				return
			}
		}
		if err != nil || n <= 0 {
			buffers.Put(buf)
			return // EIO is how a terminal ends
		}
		out.deliver(o, buf[:n])
		buffers.Put(buf)
		if out.ending.Load() {
			left -= n
		}
	}
}

func readFD(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (out *output) deliver(o *IO, p []byte) {
	if o.log != nil {
		// An error (disk full) loses text, not the container.
		o.log.Write(out.stream, p, time.Now())
	}
	if out.target != nil && !out.failed {
		if _, err := out.target.Write(p); err != nil {
			out.failed = true
		}
	}
	if o.hub != nil {
		o.broadcast(byte(out.stream), p)
	}
}

// stop makes relay end as soon as the stream is empty.
func (out *output) stop(terminal bool) {
	if out.src == nil {
		return
	}
	out.ending.Store(true)
	when := time.Now()
	if terminal {
		when = when.Add(terminalGrace)
	}
	out.src.SetReadDeadline(when)
}

// wait waits for relay's end, no longer than d.
func (out *output) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-out.done:
	case <-t.C:
	}
}

// close ends relay if it still runs: a read or write that waits fails.
func (out *output) close() {
	if out.src != nil {
		out.src.Close()
	}
	if out.target != nil {
		out.target.Close()
	}
}

// pipe returns the ends of a pipe as plain blocking files.
func pipe() (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return os.NewFile(uintptr(p[0]), "|0"), os.NewFile(uintptr(p[1]), "|1"), nil
}

// pollable turns f, whose description nobody else has, into a file that waits
// in the poller. f is used up.
func pollable(f *os.File) (*os.File, error) {
	g, err := dupPollable(f)
	f.Close()
	return g, err
}

func dupPollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// copyInput passes on what c's client sends. It returns true when the client
// only ended its input, false when it is gone.
func copyInput(c *client, write func([]byte) bool) (half bool) {
	rc, err := c.conn.SyscallConn()
	if err != nil {
		return false
	}
	for {
		var buf *[bufferSize]byte
		var n int
		var rerr error
		err := rc.Read(func(fd uintptr) bool {
			buf = buffers.Get().(*[bufferSize]byte)
			if n, rerr = readFD(int(fd), buf[:]); rerr == unix.EAGAIN {
				buffers.Put(buf)
				buf = nil
				return false
			}
			return true
		})
		if err != nil {
			return false
		}
		if rerr != nil || n <= 0 {
			buffers.Put(buf)
			return rerr == nil && !hungUp(rc)
		}
		ok := write(buf[:n])
		buffers.Put(buf)
		if !ok {
			return false
		}
	}
}

// hungUp tells whether the peer closed altogether, not only its writing half.
func hungUp(rc syscallConn) bool {
	gone := true
	err := rc.Control(func(fd uintptr) { gone = pollHUP(fd) })
	return err != nil || gone
}

func pollHUP(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		return err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	}
}

// waitHangup waits until the peer of a half-closed connection is gone too.
func waitHangup(c interface {
	SyscallConn() (syscallConn, error)
}) {
	rc, err := c.SyscallConn()
	if err != nil {
		return
	}
	// The poller reports the hang-up as readable.
	rc.Read(pollHUP)
}
