// Package criu has CRIU save processes to files and bring them back. CRIU is a program of its own, started for each
// request and spoken to over a socket in the messages of its rpc.proto (https://criu.org/RPC).
package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"cale/runtime/launch"

	"golang.org/x/sys/unix"
)

// ErrNotInstalled is a machine without CRIU.
var ErrNotInstalled = errors.New("criu is not installed: checkpoint and restore need the program criu in $PATH")

// maxMessage bounds an answer. CRIU's are some hundred bytes.
const maxMessage = 64 << 10

// CRIU's descriptors.
const (
	socketFD  = 3
	imagesFD  = 4
	workFD    = 5
	firstFile = 6
)

// Installed says whether there is a CRIU: nil or ErrNotInstalled.
func Installed() error {
	_, err := find()
	return err
}

func find() (string, error) {
	program, err := exec.LookPath("criu")
	if err != nil {
		return "", ErrNotInstalled
	}
	return program, nil
}

// Config says how to start CRIU.
type Config struct {
	// Stdin, Stdout and Stderr become descriptors 0 to 2; nil is /dev/null.
	Stdin, Stdout, Stderr *os.File
	// Files become descriptors, with the numbers that Descriptor gives.
	Files []*os.File
	// ImagesDir is where CRIU's files are, WorkDir where its log goes; "" is none, or where the files are. CRIU's
	// process opens them, in the mount namespace it is in: it mounts things in its working directory.
	ImagesDir, WorkDir string
	// Flags and Cgroup are as in launch.Config.
	Flags  uint64
	Cgroup *os.File
	// Prepare adds what CRIU's process does before it becomes CRIU; may be nil.
	Prepare func(p *launch.Program)
}

// Descriptor is the number in CRIU's process of Config.Files[i].
func Descriptor(i int) int { return firstFile + i }

// Conn is a running CRIU. It takes one request.
type Conn struct {
	sock *os.File
	proc *launch.Proc
	// givenUp is set once nobody waits for an answer any more.
	givenUp atomic.Bool
}

// grace is how long CRIU may take to undo what it did when nobody waits for it any more; then it hangs.
var grace = 10 * time.Second

// syncSocket is the point at which CRIU's process hands over the caller's end of the socket.
const syncSocket = 1

// Start runs CRIU. The caller must Close it, and is its parent.
func Start(ctx context.Context, c Config) (*Conn, error) {
	program, err := find()
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	p := launch.New()
	defer p.Free()
	if c.Prepare != nil {
		c.Prepare(p)
	}
	p.Step("start criu")
	p.Call(unix.SYS_RT_SIGPROCMASK, launch.N(unix.SIG_SETMASK), launch.Ptr(p.Mem(8)), launch.N(0), launch.N(8))
	// CRIU takes descriptors that a request names for those of whoever made the socket: its own process, so that
	// the directories are in its mount namespace.
	pair := launch.Ptr(p.Mem(8))
	p.Call(unix.SYS_SOCKETPAIR, launch.N(unix.AF_UNIX), launch.N(unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC), launch.N(0), pair)
	theirs, ours := p.Load32(pair, 0, ^uint32(0)), p.Load32(pair, 4, ^uint32(0))
	p.SyncFD(syncSocket, ours)
	files := append([]*os.File{c.Stdin, c.Stdout, c.Stderr, null, null, null}, c.Files...)
	regs := make([]launch.Reg, len(files))
	for i, f := range files {
		if f == nil {
			f = null
		}
		from := launch.N(f.Fd())
		switch {
		case i == socketFD:
			from = theirs.Arg()
		case i == imagesFD && c.ImagesDir != "":
			from = openDir(p, c.ImagesDir)
		case i == workFD && c.WorkDir != "":
			from = openDir(p, c.WorkDir)
		}
		regs[i] = p.Call(unix.SYS_FCNTL, from, launch.N(unix.F_DUPFD_CLOEXEC), launch.N(len(files))).New()
	}
	p.Step("start criu")
	for i, r := range regs {
		p.Call(unix.SYS_DUP3, r.Arg(), launch.N(i), launch.N(0))
	}
	p.Call(unix.SYS_CLOSE_RANGE, launch.N(len(files)), launch.N(^uint32(0)), launch.N(unix.CLOSE_RANGE_CLOEXEC))
	argv := p.Strs([]string{"criu", "swrk", fmt.Sprint(socketFD)})
	p.Call(unix.SYS_EXECVE, p.Str(program), argv, p.Strs(os.Environ()))
	conn := &Conn{}
	conn.proc, err = launch.Run(ctx, launch.Config{Program: p, Flags: c.Flags, Cgroup: c.Cgroup,
		Sync: func(_ *launch.Proc, at launch.Point) error {
			if conn.sock = at.Sent; conn.sock == nil {
				return errors.New("the socket did not arrive")
			}
			return nil
		}})
	runtime.KeepAlive(files)
	if err != nil {
		if conn.sock != nil {
			conn.sock.Close()
		}
		return nil, err
	}
	return conn, nil
}

func openDir(p *launch.Program, dir string) launch.Arg {
	p.Step("open the directory " + dir)
	return p.Call(unix.SYS_OPENAT, launch.N(unix.AT_FDCWD), p.Str(dir), launch.N(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)).New().Arg()
}

// Pid is CRIU's process ID.
func (c *Conn) Pid() int { return c.proc.Pid }

// Do sends a request and returns its answer. In between, notified is called for each thing CRIU tells, with the
// descriptor that came along or nil, which is notified's to close; if it fails, so does the request.
func (c *Conn) Do(ctx context.Context, r Request, notified func(n Response, file *os.File) error) (Response, error) {
	// Whoever is waited for too long is told by the end of the connection.
	stop := context.AfterFunc(ctx, func() {
		c.givenUp.Store(true)
		unix.Shutdown(int(c.sock.Fd()), unix.SHUT_RDWR)
	})
	resp, err := c.do(r, notified)
	if !stop() && err != nil {
		err = context.Cause(ctx)
	}
	return resp, err
}

func (c *Conn) do(r Request, notified func(Response, *os.File) error) (Response, error) {
	if err := c.send(r.append(nil)); err != nil {
		return Response{}, err
	}
	var failed error
	for {
		resp, file, err := c.receive()
		if err != nil {
			return Response{}, errors.Join(failed, err)
		}
		if resp.Type != notify || !resp.Success {
			if file != nil {
				file.Close()
			}
			return resp, errors.Join(failed, resp.check(r.Type))
		}
		if notified == nil {
			if file != nil {
				file.Close()
			}
		} else if err := notified(resp, file); err != nil && failed == nil {
			failed = err // CRIU undoes what it did, and says that it failed
		}
		if err := c.send(appendNotified(nil, failed == nil)); err != nil {
			return Response{}, errors.Join(failed, err)
		}
	}
}

// check turns an answer that is no success into an error.
func (r *Response) check(asked Type) error {
	if r.Success && r.Type == asked {
		return nil
	}
	if r.Success {
		return fmt.Errorf("criu answered a request of type %s with %s", asked, r.Type)
	}
	return &Error{Type: r.Type, Errno: r.Errno, Message: strings.TrimSpace(r.Message)}
}

// Error is CRIU's answer that it failed.
type Error struct {
	Type    Type
	Errno   int
	Message string // the first error it met, which need not be the one it failed for, or ""
}

func (e *Error) Error() string {
	text := fmt.Sprintf("criu failed: type %s errno %d", e.Type, e.Errno)
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

func (c *Conn) send(b []byte) error {
	for {
		err := unix.Sendto(int(c.sock.Fd()), b, unix.MSG_NOSIGNAL, nil)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("write to criu: %w", err)
		}
	}
}

// receive reads one message and the descriptor that may come with it.
func (c *Conn) receive() (resp Response, file *os.File, err error) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*4))
	var n, oobn, flags int
	for {
		n, oobn, flags, _, err = unix.Recvmsg(int(c.sock.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return resp, nil, fmt.Errorf("read from criu: %w", err)
	}
	if n == 0 {
		return resp, nil, errors.New("criu ended without an answer")
	}
	file = receivedFile(oob[:oobn])
	if flags&unix.MSG_TRUNC != 0 {
		err = fmt.Errorf("criu sent more than %d bytes", maxMessage)
	} else {
		err = resp.unmarshal(buf[:n])
	}
	if err != nil && file != nil {
		file.Close()
		file = nil
	}
	return resp, file, err
}

func receivedFile(oob []byte) (file *os.File) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if file == nil {
				file = os.NewFile(uintptr(fd), "from criu")
			} else {
				unix.Close(fd)
			}
		}
	}
	return file
}

// Close ends the connection, by which CRIU ends, and waits for that. After a Do that was cancelled it ends a CRIU that
// takes too long.
func (c *Conn) Close() error {
	c.sock.Close()
	defer c.proc.PidFD.Close()
	if c.givenUp.Load() {
		pidfd := int(c.proc.PidFD.Fd())
		kill := time.AfterFunc(grace, func() { unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) })
		defer kill.Stop()
	}
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(c.proc.Pid, &ws, 0, nil)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("wait for criu: %w", err)
		}
	}
	switch {
	case ws.Signaled():
		return fmt.Errorf("criu was killed: %s", ws.Signal())
	case ws.ExitStatus() != 0:
		return fmt.Errorf("criu ended with status %d", ws.ExitStatus())
	}
	return nil
}

// Ask starts CRIU for one request that needs nothing else.
func Ask(ctx context.Context, r Request) (Response, error) {
	c, err := Start(ctx, Config{})
	if err != nil {
		return Response{}, err
	}
	resp, err := c.Do(ctx, r, nil)
	return resp, errors.Join(err, c.Close())
}
