package cri

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"
)

// Kubernetes' library for runtimes speaks the older WebSocket protocols. Here are those that its clients use now: one
// channel for each stream, which can be half closed (v5), and SPDY in a WebSocket's messages for forwarded ports.

// channelsProtocol is v4.channel.k8s.io with a message that closes one channel.
const channelsProtocol = "v5.channel.k8s.io"

// Channels of that protocol.
const (
	stdinChannel = iota
	stdoutChannel
	stderrChannel
	errorChannel
	resizeChannel
	channelCount
)

// serveChannels runs a command with its streams on the channels of a WebSocket, and says at last how it ended.
func serveChannels(w http.ResponseWriter, r *http.Request, o *remotecommand.Options,
	run func(ctx context.Context, in io.Reader, out, errOut io.WriteCloser, resize <-chan remotecommand.TerminalSize) error) {
	kinds := make([]wsstream.ChannelType, channelCount)
	for i, want := range []bool{o.Stdin, o.Stdout, o.Stderr, true, true} {
		switch {
		case !want:
			kinds[i] = wsstream.IgnoreChannel
		case i == stdinChannel || i == resizeChannel:
			kinds[i] = wsstream.ReadChannel
		default:
			kinds[i] = wsstream.WriteChannel
		}
	}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{channelsProtocol: {Binary: true, Channels: kinds}})
	conn.SetIdleTimeout(streamIdle)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		return // the client was told
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	resize := make(chan remotecommand.TerminalSize)
	go func() {
		// This channel ends with the connection, whoever ends that.
		defer cancel()
		readSizes(ctx, streams[resizeChannel], resize)
	}()
	var in io.Reader
	var out, errOut io.WriteCloser
	if o.Stdin {
		in = streams[stdinChannel]
	}
	if o.Stdout {
		out = streams[stdoutChannel]
	}
	if o.Stderr {
		errOut = streams[stderrChannel]
	}
	raw, err := json.Marshal(endOf(run(ctx, in, out, errOut, resize)))
	if err == nil {
		_, _ = streams[errorChannel].Write(raw) // a client that is gone asks no more
	}
}

func readSizes(ctx context.Context, from io.Reader, to chan<- remotecommand.TerminalSize) {
	defer close(to)
	d := json.NewDecoder(from)
	for {
		var size remotecommand.TerminalSize
		if d.Decode(&size) != nil {
			return
		}
		select {
		case to <- size:
		case <-ctx.Done():
			return
		}
	}
}

// ending is how a command ended, as Kubernetes' API has it (metav1.Status).
type ending struct {
	Status  string         `json:"status"`
	Message string         `json:"message,omitempty"`
	Reason  string         `json:"reason,omitempty"`
	Details *endingDetails `json:"details,omitempty"`
	Code    int            `json:"code,omitempty"`
}

type endingDetails struct {
	Causes []endingCause `json:"causes,omitempty"`
}

type endingCause struct {
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

func endOf(err error) ending {
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return ending{Status: "Success"}
	case errors.As(err, &exit) && exit.Exited():
		return ending{Status: "Failure", Reason: "NonZeroExitCode", Message: "command terminated with non-zero exit code: " + exit.Error(),
			Details: &endingDetails{Causes: []endingCause{{Reason: "ExitCode", Message: strconv.Itoa(exit.ExitStatus())}}}}
	}
	return ending{Status: "Failure", Reason: "InternalError", Message: "Internal error occurred: " + err.Error(), Code: http.StatusInternalServerError}
}

// tunnelPrefix begins the names of protocols that are SPDY in a WebSocket; what it carries comes after it.
const tunnelPrefix = "SPDY/3.1+"

// serveTunnel has handle answer a request to speak SPDY as if it had come without the WebSocket around it.
func serveTunnel(w http.ResponseWriter, r *http.Request, handle func(http.ResponseWriter, *http.Request)) {
	inner := ""
	server := websocket.Server{
		Handshake: func(c *websocket.Config, _ *http.Request) error {
			for _, p := range c.Protocol {
				if rest, ok := strings.CutPrefix(p, tunnelPrefix); ok {
					inner, c.Protocol = rest, []string{p}
					return nil
				}
			}
			return websocket.ErrBadWebSocketProtocol
		},
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			q := r.Clone(r.Context())
			q.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {inner}}
			handle(&tunnel{Conn: ws, header: http.Header{}}, q)
		},
	}
	server.ServeHTTP(w, r)
}

// tunnel is a WebSocket as the connection of a request that was upgraded already.
type tunnel struct {
	*websocket.Conn
	header http.Header
	once   sync.Once
}

func (t *tunnel) Header() http.Header { return t.header }
func (t *tunnel) WriteHeader(int)     {}

// Hijack gives the connection. What was said of the upgrade before is not the client's to see: it has been upgraded.
func (t *tunnel) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t, bufio.NewReadWriter(bufio.NewReader(t), bufio.NewWriter(t)), nil
}

// Close says that all is well before the connection ends.
func (t *tunnel) Close() (err error) {
	t.once.Do(func() {
		const normal = 1000
		err = errors.Join(t.WriteClose(normal), t.Conn.Close())
	})
	return err
}
