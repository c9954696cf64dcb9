package docker

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"cale/engine"
)

// started is a response whose status is sent by its first byte; an error before that still gets a status.
type started struct {
	w    http.ResponseWriter
	sent bool
}

func (s *started) Write(p []byte) (int, error) {
	s.sent = true
	return s.w.Write(p)
}

// fail ends the response: with the error while there is time, else by breaking the connection, as a truncated body
// must not look whole.
func (s *started) fail(err error) error {
	if !s.sent {
		s.w.Header().Del("Content-Type")
		return err
	}
	panic(http.ErrAbortHandler)
}

// writeBody sends one more JSON value and flushes it.
func writeBody(w http.ResponseWriter, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	return nil
}

const (
	rawStream         = "application/vnd.docker.raw-stream"
	multiplexedStream = "application/vnd.docker.multiplexed-stream"
)

func streamType(r *request, tty bool) string {
	if tty || r.before("1.42") {
		return rawStream
	}
	return multiplexedStream
}

// hijack takes the connection over for a stream in both directions.
func hijack(w http.ResponseWriter, r *request, tty bool) (net.Conn, *bufio.Reader, error) {
	h, ok := w.(http.Hijacker)
	if !ok {
		return nil, nil, invalid("this connection can't carry a stream")
	}
	conn, buf, err := h.Hijack()
	if err != nil {
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + rawStream + "\r\n\r\n"
	if r.Header.Get("Upgrade") != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + streamType(r, tty) + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
		head += "Api-Version: " + APIVersion + "\r\n\r\n"
	}
	if _, err := io.WriteString(conn, head); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, buf.Reader, nil
}

// pump joins a hijacked connection and a process until the process's output has ended or the client has left. bare
// output has no frames.
func pump(conn net.Conn, in *bufio.Reader, s *engine.Stream, stdin, bare bool) {
	defer conn.Close()
	defer s.Close()
	go func() {
		if gone := forward(s, conn, in, stdin); !gone {
			if stdin {
				go s.CloseWrite() // waits for the container's start, if that is still to come
			}
			if !waitHangup(conn) {
				return
			}
		}
		// Not merely silent: nothing is left to write to.
		s.Close()
	}()
	awaitRead(conn)
	if bare {
		copyPlain(conn, s)
		return
	}
	_, _ = io.Copy(conn, s)
}

// mostUnread is how long output waits for the client to read the answer's head.
const mostUnread = time.Second

// awaitRead waits until the client has read what was sent. Clients that take the socket from below a buffered reader
// after the head, Docker's for Python among them, lose what comes in one read with it.
func awaitRead(conn net.Conn) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return // the kernel tells what arrived, not what was read
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	end := time.Now().Add(mostUnread)
	for wait := 20 * time.Microsecond; time.Now().Before(end); wait = min(2*wait, 5*time.Millisecond) {
		unread := 0
		if cerr := raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); cerr != nil || err != nil || unread == 0 {
			return
		}
		time.Sleep(wait)
	}
}

// forward sends a client's input until it ends, and says whether the client is gone. A process that has closed its
// stdin goes on writing: the rest of the input is dropped. A client that only listens may close its half.
func forward(s *engine.Stream, conn net.Conn, in io.Reader, stdin bool) (gone bool) {
	buf := make([]byte, 32<<10)
	open := stdin
	ready := s.Ready()
	for {
		n, err := in.Read(buf)
		if n > 0 && open && ready != nil {
			// The input waits for the start. Its client may leave without waiting along.
			if gone := hungUpBefore(conn, ready); gone {
				return true
			}
			ready = nil
		}
		if n > 0 && open {
			if _, werr := s.Write(buf[:n]); werr != nil {
				open = false
			}
		}
		if err != nil {
			return err != io.EOF
		}
	}
}

// waitHangup waits until a client that has closed its half is gone altogether: a process that never writes again
// would not tell, and the connection would stay. It is false where that can't be known.
func waitHangup(conn net.Conn) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	// The poller wakes for a hang-up as for data. An error is our own end's closing.
	_ = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		for {
			_, err := unix.Poll(p, 0)
			if err != unix.EINTR {
				return err != nil || p[0].Revents != 0
			}
		}
	})
	return true
}

// hungUpBefore waits for ready, or for the client to be gone altogether, which it then says.
func hungUpBefore(conn net.Conn, ready <-chan struct{}) bool {
	left := make(chan struct{})
	go func() {
		defer close(left)
		if !waitHangup(conn) {
			<-ready // it can't be told
		}
	}()
	select {
	case <-ready:
	case <-left:
		select {
		case <-ready:
		default:
			return true
		}
	}
	// Whoever watches the connection has to let go of it before it is read again.
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	<-left
	_ = conn.SetReadDeadline(time.Time{})
	return false
}

// copyPlain takes the frames off: a terminal's output travels bare.
func copyPlain(w io.Writer, r io.Reader) {
	br := bufio.NewReaderSize(r, 32<<10)
	var head [8]byte
	for {
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return
		}
		if _, err := io.CopyN(w, br, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return
		}
	}
}

func (s *Server) containerAttach(w http.ResponseWriter, r *request) error {
	o := engine.AttachOptions{Stdin: r.flag("stdin"), Stdout: r.flag("stdout"), Stderr: r.flag("stderr"), Logs: r.flag("logs"), Stream: r.flag("stream")}
	keys, err := detachKeys(r.text("detachKeys"))
	if err != nil {
		return err
	}
	st, err := s.engine.Attach(r.Context(), r.name(), o)
	if err != nil {
		return bareError{err}
	}
	conn, in, err := hijack(w, r, st.TTY)
	if err != nil {
		st.Close()
		return err
	}
	if !o.Stdin {
		pump(conn, in, st, false, st.TTY)
		return nil
	}
	pump(conn, detachable(in, keys, st, conn), st, true, st.TTY)
	return nil
}

func (s *Server) execCreate(w http.ResponseWriter, r *request) error {
	var in container.ExecCreateRequest
	if err := r.decode(&in); err != nil {
		return err
	}
	if len(in.Cmd) == 0 {
		return invalid("No exec command specified")
	}
	spec := engine.ExecSpec{
		Cmd: in.Cmd, Env: in.Env, User: in.User, WorkingDir: in.WorkingDir, TTY: in.Tty, Privileged: in.Privileged,
		Stdin: in.AttachStdin, Stdout: in.AttachStdout, Stderr: in.AttachStderr, DetachKeys: in.DetachKeys,
	}
	if in.ConsoleSize != nil {
		spec.ConsoleSize = *in.ConsoleSize
	}
	if _, err := detachKeys(in.DetachKeys); err != nil {
		return err
	}
	id, err := s.engine.ExecCreate(r.Context(), r.name(), spec)
	e := entryOf(r.Context())
	e.Made, e.Command = id, in.Cmd
	if spec.Privileged {
		e.Powers = []string{"privileged"}
	}
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.ExecCreateResponse{ID: id})
}

func (s *Server) execStart(w http.ResponseWriter, r *request) error {
	var in container.ExecStartRequest
	if err := r.decode(&in); err != nil {
		return err
	}
	o := engine.ExecStartOptions{Detach: in.Detach, TTY: in.Tty}
	if in.ConsoleSize != nil {
		o.ConsoleSize = *in.ConsoleSize
	}
	info, err := s.engine.ExecInspect(r.Context(), r.name())
	if err != nil {
		return err
	}
	c, err := s.engine.Inspect(r.Context(), info.Container, false)
	if err != nil {
		return err
	}
	if o.Detach || info.Started || c.State.Status != engine.Running {
		st, err := s.engine.ExecStart(r.detached(), r.name(), o)
		if err == nil && st != nil {
			st.Close()
		}
		return err
	}
	// A command that can't be started is the session's outcome, not the request's: clients read the reason from the
	// stream and the exit code, 126 or 127, from the session.
	keys, err := detachKeys(info.Spec.DetachKeys)
	if err != nil {
		return err
	}
	// Whether frames are sent is this request's to say, not the session's.
	conn, in2, err := hijack(w, r, in.Tty)
	if err != nil {
		return err
	}
	st, err := s.engine.ExecStart(r.detached(), r.name(), o)
	if err != nil {
		_ = writeFrame(conn, 2, in.Tty, []byte(err.Error()+"\r\n"))
		return conn.Close()
	}
	pump(conn, detachable(in2, keys, st, conn), st, info.Spec.Stdin, in.Tty)
	return nil
}

// detachable is a client's input from which the detach keys lead out; only a terminal's client types keys.
func detachable(in io.Reader, keys []byte, st *engine.Stream, conn net.Conn) *bufio.Reader {
	if !st.TTY {
		keys = nil
	}
	return bufio.NewReader(&detacher{r: in, keys: keys, leave: func() { st.Detach(); conn.Close() }})
}

func (s *Server) execResize(w http.ResponseWriter, r *request) error {
	height, width, err := size(r)
	if err != nil {
		return err
	}
	if err := s.engine.ExecResize(r.Context(), r.name(), height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) execInspect(w http.ResponseWriter, r *request) error {
	e, err := s.engine.ExecInspect(r.Context(), r.name())
	if err != nil {
		return err
	}
	privileged := e.Spec.Privileged
	out := container.ExecInspectResponse{
		ID: e.ID, Running: e.Running, ExitCode: e.ExitCode, OpenStdin: e.Spec.Stdin, OpenStdout: e.Spec.Stdout, OpenStderr: e.Spec.Stderr,
		ContainerID: e.Container, Pid: e.Pid, CanRemove: !e.Running && e.Started,
		ProcessConfig: &container.ExecProcessConfig{Tty: e.Spec.TTY, Privileged: &privileged, User: e.Spec.User},
	}
	if len(e.Spec.Cmd) > 0 {
		out.ProcessConfig.Entrypoint, out.ProcessConfig.Arguments = e.Spec.Cmd[0], e.Spec.Cmd[1:]
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) containerLogs(w http.ResponseWriter, r *request) error {
	o := engine.LogOptions{
		Stdout: r.flag("stdout"), Stderr: r.flag("stderr"), Follow: r.flag("follow"),
		Timestamps: r.flag("timestamps"), Details: r.flag("details"), Tail: -1,
	}
	if !o.Stdout && !o.Stderr {
		return invalid("must specify at least one of 'stdout' or 'stderr'")
	}
	var err error
	if o.Since, err = parseTime(r.text("since"), time.Now()); err != nil {
		return err
	}
	if o.Until, err = parseTime(r.text("until"), time.Now()); err != nil {
		return err
	}
	// What is no number is every line, as it always was.
	if n, err := strconv.Atoi(r.text("tail")); err == nil && n >= 0 {
		o.Tail = n
	}
	logs, tty, err := s.engine.Logs(r.Context(), r.name(), o)
	if err != nil {
		return err
	}
	defer logs.Close()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-r.Context().Done():
			logs.Close()
		case <-stop:
		}
	}()
	w.Header().Set("Content-Type", streamType(r, tty))
	w.WriteHeader(http.StatusOK)
	flusher, _ := w.(http.Flusher)
	flusher.Flush()
	for {
		e, err := logs.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				writeFrame(w, 2, tty, []byte("Error grabbing logs: "+err.Error()+"\n"))
			}
			return nil
		}
		line := e.Line
		if o.Details {
			line = append([]byte(attributes(e.Attrs)+" "), line...)
		}
		if o.Timestamps {
			line = append([]byte(e.Time.UTC().Format("2006-01-02T15:04:05.000000000Z07:00")+" "), line...)
		}
		stream := byte(1)
		if e.Stream == "stderr" {
			stream = 2
		}
		if err := writeFrame(w, stream, tty, line); err != nil {
			return nil
		}
		if o.Follow {
			flusher.Flush()
		}
	}
}

// attributes are a log line's details, in the order of their names.
func attributes(m map[string]string) string {
	parts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, ",")
}

func writeFrame(w io.Writer, stream byte, bare bool, p []byte) error {
	if !bare {
		var head [8]byte
		head[0] = stream
		binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
		if _, err := w.Write(head[:]); err != nil {
			return err
		}
	}
	_, err := w.Write(p)
	return err
}
