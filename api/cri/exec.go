package cri

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"cale/engine"
)

// maxOutput bounds what ExecSync keeps of each stream, as the CRI asks; the rest is read and dropped.
const maxOutput = 16 << 20 / 2

// ExecSync runs a command in a container and waits for its end.
func (s *Server) ExecSync(ctx context.Context, r *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	i, err := s.engine.Member(r.ContainerId)
	if err != nil {
		return nil, err
	}
	res, err := s.engine.ExecRun(ctx, i.ID, engine.ExecSpec{Cmd: r.Cmd}, engine.RunOptions{Timeout: timeout(r.Timeout), Keep: maxOutput})
	if err != nil {
		return nil, err
	}
	if res.Late {
		return nil, status.Errorf(codes.DeadlineExceeded, "the command did not end within %d s and was killed", r.Timeout)
	}
	return &runtimeapi.ExecSyncResponse{Stdout: res.Stdout, Stderr: res.Stderr, ExitCode: int32(res.ExitCode)}, nil
}

// timeout is a client's timeout; what is not above 0 is none.
func timeout(n int64) time.Duration {
	return time.Duration(max(0, min(n, int64(math.MaxInt64/time.Second)))) * time.Second
}

// demux parts the frames of a stream.
func demux(r io.Reader, out, errOut io.Writer) error {
	var head [8]byte
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		w := out
		if head[0] == 2 {
			w = errOut
		}
		if w == nil {
			w = io.Discard
		}
		for left := int64(binary.BigEndian.Uint32(head[4:])); left > 0; {
			n, err := r.Read(buf[:min(left, int64(len(buf)))])
			if n > 0 {
				if _, err := w.Write(buf[:n]); err != nil {
					return err
				}
				left -= int64(n)
			}
			if err != nil && left > 0 {
				return err
			}
		}
	}
}

// Exec gives the address where one connection may run a command.
func (s *Server) Exec(ctx context.Context, r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	url, err := s.processURL(ctx, "exec", &r.ContainerId, r)
	return &runtimeapi.ExecResponse{Url: url}, err
}

// Attach gives the address where one connection may attach to a container.
func (s *Server) Attach(ctx context.Context, r *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	url, err := s.processURL(ctx, "attach", &r.ContainerId, r)
	return &runtimeapi.AttachResponse{Url: url}, err
}

// processURL is where one connection may have the streams of a process in a running container, whose id is made whole.
func (s *Server) processURL(ctx context.Context, kind string, id *string, r interface {
	GetTty() bool
	GetStdin() bool
	GetStdout() bool
	GetStderr() bool
}) (string, error) {
	i, err := s.running(ctx, *id)
	if err != nil {
		return "", err
	}
	if err := checkStreams(r.GetTty(), r.GetStdin(), r.GetStdout(), r.GetStderr()); err != nil {
		return "", err
	}
	*id = i.ID
	return s.streamURL(kind, r)
}

// PortForward gives the address where one connection may reach ports of a pod.
func (s *Server) PortForward(_ context.Context, r *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	p, err := s.engine.Pod(r.PodSandboxId)
	if err != nil {
		return nil, err
	}
	if !p.Ready {
		return nil, &engine.Error{Class: engine.ErrConflict, Text: "pod " + p.ID + " is not ready"}
	}
	r.PodSandboxId = p.ID
	url, err := s.streamURL("portforward", r)
	return &runtimeapi.PortForwardResponse{Url: url}, err
}

func (s *Server) running(ctx context.Context, id string) (engine.Info, error) {
	i, err := s.engine.Member(id)
	if err == nil && i.State.Status != engine.Running {
		return i, &engine.Error{Class: engine.ErrConflict, Text: "container " + i.ID + " is not running"}
	}
	return i, err
}

// streamer carries out what streaming connections ask for.
type streamer struct{ s *Server }

// Exec runs a command with its streams connected.
func (x streamer) Exec(ctx context.Context, container string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	e := x.s.engine
	id, err := e.ExecCreate(ctx, container, engine.ExecSpec{Cmd: cmd, TTY: tty, Stdin: in != nil, Stdout: true, Stderr: !tty})
	if err != nil {
		return err
	}
	st, err := e.ExecStart(ctx, id, engine.ExecStartOptions{TTY: tty})
	if err != nil {
		return err
	}
	err = x.relay(ctx, st, in, out, errOut, resize, func(ctx context.Context, h, w uint) error { return e.ExecResize(ctx, id, h, w) })
	if err != nil {
		return err
	}
	code, err := e.ExecWait(ctx, id)
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return nil
}

// Attach connects to a container's own process.
func (x streamer) Attach(ctx context.Context, container string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	e := x.s.engine
	st, err := e.Attach(ctx, container, engine.AttachOptions{Stdin: in != nil, Stdout: out != nil, Stderr: errOut != nil, Stream: true})
	if err != nil {
		return err
	}
	return x.relay(ctx, st, in, out, errOut, resize, func(ctx context.Context, h, w uint) error { return e.Resize(ctx, container, h, w) })
}

func (x streamer) relay(ctx context.Context, st *engine.Stream, in io.Reader, out, errOut io.WriteCloser, resize <-chan remotecommand.TerminalSize, size func(context.Context, uint, uint) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer st.Close()
	context.AfterFunc(ctx, func() { st.Close() })
	go func() {
		for {
			select {
			case sz, ok := <-resize:
				if !ok {
					return
				}
				_ = size(ctx, uint(sz.Height), uint(sz.Width)) // a size that comes too late is nobody's loss
			case <-ctx.Done():
				return
			}
		}
	}()
	if in != nil {
		go func() {
			// Its end is the input's; the process may go on.
			if _, err := io.Copy(st, in); err == nil {
				_ = st.CloseWrite()
			}
		}()
	}
	var o, eo io.Writer
	if out != nil {
		o = out
	}
	if errOut != nil {
		eo = errOut
	}
	err := demux(st, o, eo)
	if ctx.Err() != nil || errors.Is(err, io.ErrClosedPipe) {
		return ctx.Err()
	}
	return err
}
