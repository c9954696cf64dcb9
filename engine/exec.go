package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"cale/engine/ocispec"
	"cale/shim"
	"cale/shim/stdio"
)

// sessionKept is how long an ended session can still be asked for.
const sessionKept = 5 * time.Minute

// session is one exec: a further process in a running container.
type session struct {
	id   string
	c    *container
	spec ExecSpec

	mu      sync.Mutex
	started bool
	running bool
	pid     int
	exit    *int
	done    chan struct{} // closed when exit is there
	run     *run
}

// ExecCreate prepares one more process in a running container.
func (e *Engine) ExecCreate(ctx context.Context, ref string, s ExecSpec) (string, error) {
	c, err := e.find(ref)
	if err != nil {
		return "", err
	}
	if len(s.Cmd) == 0 {
		return "", invalid("No exec command specified")
	}
	c.mu.Lock()
	running, status := c.run != nil, c.rec.State.Status
	c.mu.Unlock()
	if !running {
		return "", conflict("container %s is not running", c.id)
	}
	if status == Paused {
		return "", conflict("Container %s is paused, unpause the container before exec", ref)
	}
	if s.User != "" {
		// Better now than in the middle of a stream. Whose the container itself is, was looked up when it started.
		if r, err := c.running(); err == nil {
			if _, err := e.execUser(c, r, &s); err != nil {
				return "", err
			}
		}
	}
	raw := make([]byte, 32)
	rand.Read(raw)
	x := &session{id: hex.EncodeToString(raw), c: c, spec: s, done: make(chan struct{})}
	e.mu.Lock()
	e.execs[x.id] = x
	e.mu.Unlock()
	e.emit(c, "exec_create: "+strings.Join(s.Cmd, " "), "execID", x.id)
	return x.id, nil
}

func (e *Engine) session(id string) (*session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.execs[id]; x != nil {
		return x, nil
	}
	return nil, notFound("No such exec instance: %s", id)
}

// ExecStart starts a session; the Stream is nil when detached.
func (e *Engine) ExecStart(ctx context.Context, id string, o ExecStartOptions) (*Stream, error) {
	defer e.begin()()
	x, err := e.session(id)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	x.c.mu.Lock()
	paused := x.c.rec.State.Status == Paused
	x.c.mu.Unlock()
	if paused {
		x.mu.Unlock()
		return nil, conflict("Container %s is paused, unpause the container before exec", x.c.id)
	}
	if x.started {
		ended := x.exit != nil
		x.mu.Unlock()
		if ended {
			return nil, conflict("exec command %s has already run", id)
		}
		return nil, conflict("exec command %s is already running", id)
	}
	x.started = true
	if o.ConsoleSize != [2]uint{} {
		x.spec.ConsoleSize = o.ConsoleSize
	}
	x.mu.Unlock()
	conn, err := e.startSession(ctx, x, o.Detach)
	if err != nil {
		code := 126
		if shim.IsCommandNotFound(err) {
			code = 127
		}
		e.sessionEnded(x, code)
		return nil, err
	}
	if conn == nil {
		return nil, nil
	}
	st := &Stream{TTY: x.spec.TTY, detached: func() { e.emit(x.c, "exec_detach", "execID", x.id) }}
	st.plug(conn)
	raw := st.Reader
	// Who reads to the end asks for the exit code next: it has to be there.
	st.Reader = readerFunc(func(p []byte) (int, error) {
		n, err := raw.Read(p)
		if err == io.EOF {
			t := time.NewTimer(10 * time.Second)
			defer t.Stop()
			select {
			case <-x.done:
			case <-t.C: // it closed its output and runs on
			}
		}
		return n, err
	})
	return st, nil
}

// startSession runs the process. Without detach, the client is connected before the first instruction.
func (e *Engine) startSession(ctx context.Context, x *session, detach bool) (*streamLink, error) {
	c := x.c
	r, err := c.running()
	if err != nil {
		return nil, err
	}
	process, err := e.execProcess(c, r, &x.spec)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(process)
	if err != nil {
		return nil, fmt.Errorf("exec %s: %w", x.id, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	req := shim.ExecRequest{ID: c.id, ExecID: x.id, Terminal: x.spec.TTY, Spec: raw}
	socket := c.attachSocket()
	hello := stdio.Hello{Exec: x.id, Stdin: x.spec.Stdin, Stdout: x.spec.Stdout || x.spec.TTY, Stderr: x.spec.Stderr && !x.spec.TTY}
	if !detach {
		u := stdio.URI{Attach: socket, Driver: "none", Stdin: hello.Stdin, StdinOnce: true}.String()
		req.Stdout = u
		if hello.Stdin {
			req.Stdin = u
		}
		if !x.spec.TTY {
			req.Stderr = u
		}
	}
	if err := x.keep(); err != nil {
		return nil, fmt.Errorf("exec %s: %w", x.id, err)
	}
	if err := c.call(ctx, func(ctx context.Context) error { return r.shim.Exec(ctx, req) }); err != nil {
		x.unkeep()
		return nil, execError(c, err)
	}
	var conn *streamLink
	if !detach {
		if conn, err = linkTo(ctx, c, r, hello); err != nil {
			r.shim.Delete(ctx, c.id, x.id)
			x.unkeep()
			return nil, fmt.Errorf("attach to exec %s: %w", x.id, err)
		}
	}
	var pid uint32
	err = c.call(ctx, func(ctx context.Context) (err error) {
		pid, err = r.shim.Start(ctx, c.id, x.id)
		return err
	})
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		r.shim.Delete(ctx, c.id, x.id)
		x.unkeep()
		return nil, execError(c, err)
	}
	e.emit(c, "exec_start: "+strings.Join(x.spec.Cmd, " "), "execID", x.id)
	e.followSession(x, r, int(pid))
	return conn, nil
}

// followSession waits for the end of a session's process, in a goroutine of its own.
func (e *Engine) followSession(x *session, r *run, pid int) {
	x.mu.Lock()
	x.running, x.pid, x.run = true, pid, r
	x.mu.Unlock()
	e.work.Go(func() {
		code := 137
		exit, err := r.shim.Wait(e.ctx, x.c.id, x.id)
		if err == nil {
			code = int(exit.Status)
			r.shim.Delete(e.ctx, x.c.id, x.id)
		} else if e.ctx.Err() != nil {
			return // the next engine goes on from here
		}
		x.unkeep()
		e.sessionEnded(x, code)
		e.emit(x.c, "exec_die", "execID", x.id, "exitCode", strconv.Itoa(code))
	})
}

func execError(c *container, err error) error {
	if _, rerr := c.running(); shim.IsUnavailable(err) && rerr == nil {
		return fail(ErrUnavailable, "the supervisor of container %s died as the command was begun: try again", c.id)
	}
	if gone(err) {
		return conflict("container %s is not running", c.id)
	}
	text := "OCI runtime exec failed: exec failed: unable to start container process: " + err.Error()
	var class error
	if shim.IsCommandNotFound(err) || shim.IsCommandNotExecutable(err) {
		class = ErrInvalid
	}
	return &Error{Class: class, Text: text, Cause: err}
}

// sessionEnded records a session's end once, and forgets the session after a while.
func (e *Engine) sessionEnded(x *session, code int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.exit != nil {
		return
	}
	x.exit, x.running = &code, false
	close(x.done)
	time.AfterFunc(sessionKept, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.execs, x.id)
	})
}

// endSessions settles the sessions of a container that has ended.
func (e *Engine) endSessions(c *container) {
	e.mu.Lock()
	var open []*session
	for id, x := range e.execs {
		if x.c != c {
			continue
		}
		open = append(open, x)
		x.mu.Lock()
		if !x.started {
			delete(e.execs, id) // it never will be
		}
		x.mu.Unlock()
	}
	e.mu.Unlock()
	for _, x := range open {
		x.mu.Lock()
		running := x.running
		x.mu.Unlock()
		if running {
			e.sessionEnded(x, 137)
		}
	}
}

// execProcess describes a session's process: the container's own settings, but what the client said.
func (e *Engine) execProcess(c *container, r *run, x *ExecSpec) (*specs.Process, error) {
	c.mu.Lock()
	rec := c.rec
	c.mu.Unlock()
	s := &rec.Spec
	caps, err := ocispec.Capabilities(s.Security.CapAdd, s.Security.CapDrop, s.Security.Privileged || x.Privileged)
	if err != nil {
		return nil, invalid("%v", err)
	}
	u, err := e.execUser(c, r, x)
	if err != nil {
		return nil, err
	}
	security := s.Security
	security.Privileged = security.Privileged || x.Privileged
	profile, err := apparmorOf(&security)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Terminal: x.TTY, User: u, Args: x.Cmd, Cwd: x.WorkingDir,
		Env:             processEnv(slices.Concat(rec.Run.Env, x.Env), rec.Run.Hostname, x.TTY),
		Capabilities:    processCaps(caps, u.UID),
		NoNewPrivileges: s.Security.NoNewPrivs,
		ApparmorProfile: profile,
	}
	p.User.Umask = s.Umask
	p.Rlimits = rlimits(s)
	if s.Member != nil {
		giveAmbient(p.Capabilities, s.Member.AmbientCaps)
	}
	if p.Cwd == "" {
		p.Cwd = rec.Run.WorkingDir
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if x.TTY && x.ConsoleSize != [2]uint{} {
		p.ConsoleSize = &specs.Box{Height: x.ConsoleSize[0], Width: x.ConsoleSize[1]}
	}
	return p, nil
}

// execUser finds who a session's process is to be, by the files of the running container.
func (e *Engine) execUser(c *container, r *run, x *ExecSpec) (u specs.User, err error) {
	c.mu.Lock()
	like, user := c.rec.Spec, c.rec.Run.User
	c.mu.Unlock()
	if x.User != "" {
		user = x.User
		like.Security.GroupAdd = nil
	}
	root, err := processRoot(r.pid)
	if err != nil {
		return u, conflict("container %s is not running", c.id)
	}
	defer root.Close()
	acc, err := readAccounts(root)
	if err != nil {
		return u, err
	}
	if u, _, err = lookupUser(user, acc, &like); err != nil {
		return u, invalid("%v", err)
	}
	return u, nil
}

// ExecInspect tells a session's state.
func (e *Engine) ExecInspect(ctx context.Context, id string) (ExecInfo, error) {
	x, err := e.session(id)
	if err != nil {
		return ExecInfo{}, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return ExecInfo{ID: x.id, Container: x.c.id, Spec: x.spec, Running: x.running, Started: x.started, ExitCode: x.exit, Pid: x.pid}, nil
}

// ExecResize sets the size of a session's terminal.
func (e *Engine) ExecResize(ctx context.Context, id string, height, width uint) error {
	x, err := e.session(id)
	if err != nil {
		return err
	}
	x.mu.Lock()
	r := x.run
	running := x.running
	x.mu.Unlock()
	if !running {
		return conflict("exec %s is not running", id)
	}
	if err := r.shim.Resize(ctx, x.c.id, x.id, uint32(width), uint32(height)); err != nil {
		if gone(err) {
			return conflict("exec %s is not running", id)
		}
		return err
	}
	return nil
}
