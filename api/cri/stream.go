package cri

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

const streamIdle = 4 * time.Hour // as the kubelet has it

// streamURL is where a client may connect once for what it asked.
func (s *Server) streamURL(kind string, request any) (string, error) {
	token, err := s.tokens.put(request)
	if err != nil {
		return "", err
	}
	return "http://" + s.listen.Addr().String() + "/" + kind + "/" + token, nil
}

// checkStreams refuses combinations of streams that make no sense.
func checkStreams(tty, in, out, errOut bool) error {
	switch {
	case tty && errOut:
		return status.Error(codes.InvalidArgument, "tty and stderr cannot both be true")
	case !in && !out && !errOut:
		return status.Error(codes.InvalidArgument, "one of stdin, stdout, or stderr must be set")
	}
	return nil
}

// serveStream connects a client with what its URL stands for.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request) {
	kind, token, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		http.Error(w, "streams are opened by GET or POST", http.StatusMethodNotAllowed)
		return
	}
	request, ok := s.tokens.take(token)
	if !ok {
		http.NotFound(w, r)
		return
	}
	x := streamer{s}
	switch q := request.(type) {
	case *runtimeapi.ExecRequest:
		o := &remotecommand.Options{Stdin: q.Stdin, Stdout: q.Stdout, Stderr: q.Stderr, TTY: q.Tty}
		run := func(ctx context.Context, in io.Reader, out, errOut io.WriteCloser, resize <-chan remotecommand.TerminalSize) error {
			return x.Exec(ctx, q.ContainerId, q.Cmd, in, out, errOut, q.Tty, resize)
		}
		switch {
		case kind != "exec":
			http.NotFound(w, r)
		case wsstream.IsWebSocketRequestWithStreamCloseProtocol(r):
			serveChannels(w, r, o, run)
		default:
			remotecommand.ServeExec(w, r, x, "", "", q.ContainerId, q.Cmd, o, streamIdle, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
		}
	case *runtimeapi.AttachRequest:
		o := &remotecommand.Options{Stdin: q.Stdin, Stdout: q.Stdout, Stderr: q.Stderr, TTY: q.Tty}
		run := func(ctx context.Context, in io.Reader, out, errOut io.WriteCloser, resize <-chan remotecommand.TerminalSize) error {
			return x.Attach(ctx, q.ContainerId, in, out, errOut, q.Tty, resize)
		}
		switch {
		case kind != "attach":
			http.NotFound(w, r)
		case wsstream.IsWebSocketRequestWithStreamCloseProtocol(r):
			serveChannels(w, r, o, run)
		default:
			remotecommand.ServeAttach(w, r, x, "", "", q.ContainerId, o, streamIdle, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
		}
	case *runtimeapi.PortForwardRequest:
		o, err := portforward.BuildV4Options(q.Port)
		switch {
		case kind != "portforward":
			http.NotFound(w, r)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
		case wsstream.IsWebSocketRequestWithTunnelingProtocol(r):
			serveTunnel(w, r, func(w http.ResponseWriter, r *http.Request) { x.serveForward(w, r, q.PodSandboxId, o) })
		default:
			x.serveForward(w, r, q.PodSandboxId, o)
		}
	}
}

func (x streamer) serveForward(w http.ResponseWriter, r *http.Request, pod string, o *portforward.V4Options) {
	portforward.ServePortForward(w, r, forwarder{x}, pod, "", o, streamIdle, remotecommand.DefaultStreamCreationTimeout, portforward.SupportedProtocols)
}

// ExecInContainer is Exec as Kubernetes' library calls it.
func (x streamer) ExecInContainer(ctx context.Context, _, _, container string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	return x.Exec(ctx, container, cmd, in, out, errOut, tty, resize)
}

// AttachContainer is Attach as Kubernetes' library calls it.
func (x streamer) AttachContainer(ctx context.Context, _, _, container string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	return x.Attach(ctx, container, in, out, errOut, tty, resize)
}

// forwarder is PortForward as Kubernetes' library calls it.
type forwarder struct{ streamer }

func (f forwarder) PortForward(ctx context.Context, pod, _ string, port int32, stream io.ReadWriteCloser) error {
	return f.streamer.PortForward(ctx, pod, port, stream)
}
