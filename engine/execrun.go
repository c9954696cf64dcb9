package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cale/shim"
)

// RunOptions bound a command of ExecRun.
type RunOptions struct {
	// Timeout is how long it may take; 0 is for ever.
	Timeout time.Duration
	// Keep is how many bytes of each stream are kept, the first ones; the rest is read and dropped.
	Keep int
	// Merged has both streams be one, which is Stdout, in the order that they were written in.
	Merged bool
}

// RunResult is how a command of ExecRun ended.
type RunResult struct {
	Stdout, Stderr []byte
	ExitCode       int
	Late           bool // it took longer than the timeout and was killed with all that descend from it
}

// ExecRun runs a command in a running container from start to end: what a probe needs, at less cost than a session, and
// nobody else can take part in it. Of x, Cmd, User, Env, WorkingDir and Privileged count. Children that live on don't
// keep it waiting.
func (e *Engine) ExecRun(ctx context.Context, ref string, x ExecSpec, o RunOptions) (res RunResult, err error) {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return res, err
	}
	if len(x.Cmd) == 0 || x.Cmd[0] == "" {
		return res, invalid("No exec command specified")
	}
	r, err := c.running()
	if err != nil {
		return res, err
	}
	c.mu.Lock()
	paused := c.rec.State.Status == Paused
	c.mu.Unlock()
	if paused {
		return res, conflict("Container %s is paused, unpause the container before exec", ref)
	}
	process, err := e.execProcess(c, r, &x)
	if err != nil {
		return res, err
	}
	raw := make([]byte, 32)
	rand.Read(raw)
	req := shim.RunRequest{ID: c.id, RunID: hex.EncodeToString(raw), Timeout: o.Timeout}
	if req.Spec, err = json.Marshal(process); err != nil {
		return res, fmt.Errorf("exec %s: %w", req.RunID, err)
	}
	var out, errOut captured
	defer out.close()
	defer errOut.close()
	req.Stdout, err = out.open(o.Keep)
	if req.Stderr = req.Stdout; err == nil && !o.Merged {
		req.Stderr, err = errOut.open(o.Keep)
	}
	if err != nil {
		return res, fmt.Errorf("exec %s: %w", req.RunID, err)
	}
	command := strings.Join(x.Cmd, " ")
	e.emit(c, "exec_create: "+command, "execID", req.RunID)
	e.emit(c, "exec_start: "+command, "execID", req.RunID)
	var status uint32
	var killed bool
	err = c.call(ctx, func(ctx context.Context) (err error) {
		status, killed, err = r.shim.Run(ctx, req)
		return err
	})
	if err == nil || ctx.Err() != nil {
		e.emit(c, "exec_die", "execID", req.RunID, "exitCode", strconv.Itoa(int(status)))
	}
	if ctx.Err() != nil {
		return res, ctx.Err()
	}
	if err != nil {
		return res, execError(c, err)
	}
	res = RunResult{ExitCode: int(status), Late: killed, Stdout: out.rest()}
	if !o.Merged {
		res.Stderr = errOut.rest()
	}
	return res, nil
}

// captured is a pipe whose writing end a process of the shim opens by name, and what came out of it.
type captured struct {
	r, w *os.File
	keep int
	done chan struct{} // closed when nothing more is read, and buf is whoever's waited for it
	buf  []byte
}

// open begins to read, and gives the name of the writing end.
func (c *captured) open(keep int) (name string, err error) {
	if c.r, c.w, err = os.Pipe(); err != nil {
		return "", err
	}
	c.keep, c.done = keep, make(chan struct{})
	go c.read()
	return "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(c.w.Fd())), nil
}

var captures = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func (c *captured) read() {
	defer close(c.done)
	for {
		if !c.take(func(p []byte) (int, error) { return c.r.Read(p) }) {
			return
		}
	}
}

// take keeps what one read gives; false when there was nothing.
func (c *captured) take(read func([]byte) (int, error)) bool {
	buf := captures.Get().(*[32 << 10]byte)
	defer captures.Put(buf)
	n, err := read(buf[:])
	if n <= 0 || err != nil {
		return false
	}
	c.buf = append(c.buf, buf[:min(n, max(c.keep-len(c.buf), 0))]...)
	return true
}

// mostLeft bounds what is taken after the end of a process: a pipe can hold no more of its output, but children of it
// may write for ever.
const mostLeft = 1 << 20

// rest is all that was written, once its process has ended.
func (c *captured) rest() []byte {
	c.w.Close()
	c.r.SetReadDeadline(time.Now())
	<-c.done
	rc, err := c.r.SyscallConn()
	if err != nil {
		return c.buf
	}
	for left := mostLeft; left > 0; left -= 32 << 10 {
		more := false
		if rc.Control(func(fd uintptr) {
			more = c.take(func(p []byte) (int, error) {
				for {
					n, err := unix.Read(int(fd), p)
					if !errors.Is(err, unix.EINTR) {
						return n, err
					}
				}
			})
		}) != nil || !more {
			break
		}
	}
	return c.buf
}

func (c *captured) close() {
	if c.r != nil {
		c.w.Close()
		c.r.Close()
	}
}
