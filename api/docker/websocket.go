package docker

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"cale/engine"
)

// attachWebSocket is attach for those who speak websockets (RFC 6455), as browsers do: output comes as binary messages,
// both streams as one; each message is input.
func (s *Server) attachWebSocket(w http.ResponseWriter, r *request) error {
	if _, err := detachKeys(r.text("detachKeys")); err != nil {
		return err
	}
	o := engine.AttachOptions{Stdin: r.flag("stdin"), Stdout: r.flag("stdout"), Stderr: r.flag("stderr"), Logs: r.flag("logs"), Stream: r.flag("stream")}
	if _, err := s.engine.Inspect(r.Context(), r.name(), false); err != nil {
		return err
	}
	key := r.Header.Get("Sec-WebSocket-Key")
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || key == "" || r.Header.Get("Sec-WebSocket-Version") != "13" {
		return invalid("not a websocket handshake of version 13")
	}
	st, err := s.engine.Attach(r.Context(), r.name(), o)
	if err != nil {
		return err
	}
	defer st.Close()
	h, ok := w.(http.Hijacker)
	if !ok {
		return invalid("this connection can't carry a stream")
	}
	conn, buf, err := h.Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{})
	accept := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	head := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(accept[:]) + "\r\n\r\n"
	if _, err := io.WriteString(conn, head); err != nil {
		return nil
	}
	ws := &webSocket{conn: conn, in: buf.Reader}
	go func() {
		// Who has left reads no more either; who only says nothing has left too: a websocket has no half.
		ws.forward(st, o.Stdin)
		st.Close()
	}()
	copyPlain(ws, st)
	_ = ws.send(opClose, []byte{0x03, 0xe8}) // 1000: all is said
	return nil
}

// The kinds of a websocket's frames.
const (
	opContinue = 0x0
	opText     = 0x1
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xa
)

// maxMessage bounds one frame of a client's: input is typed, or comes in pieces.
const maxMessage = 1 << 20

var errWebSocket = errors.New("not as RFC 6455 has it")

// webSocket is the server's end of a connection. Writing is for any goroutine, reading for one.
type webSocket struct {
	conn net.Conn
	in   *bufio.Reader
	mu   sync.Mutex
}

// Write implements io.Writer: one binary message.
func (w *webSocket) Write(p []byte) (int, error) {
	if err := w.send(opBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *webSocket) send(op byte, p []byte) error {
	head := make([]byte, 2, 10)
	head[0] = 0x80 | op // whole
	switch n := len(p); {
	case n < 126:
		head[1] = byte(n)
	case n < 1<<16:
		head[1] = 126
		head = binary.BigEndian.AppendUint16(head, uint16(n))
	default:
		head[1] = 127
		head = binary.BigEndian.AppendUint64(head, uint64(n))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.conn.Write(head); err != nil {
		return err
	}
	_, err := w.conn.Write(p)
	return err
}

// receive reads one frame.
func (w *webSocket) receive() (op byte, data []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return 0, nil, err
	}
	size := uint64(head[1] & 0x7f)
	switch size {
	case 126:
		var b [2]byte
		if _, err := io.ReadFull(w.in, b[:]); err != nil {
			return 0, nil, err
		}
		size = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		if _, err := io.ReadFull(w.in, b[:]); err != nil {
			return 0, nil, err
		}
		size = binary.BigEndian.Uint64(b[:])
	}
	// A client's frames are masked, always; the reserved bits mean what nobody agreed on.
	if head[1]&0x80 == 0 || head[0]&0x70 != 0 || size > maxMessage {
		return 0, nil, errWebSocket
	}
	var mask [4]byte
	if _, err := io.ReadFull(w.in, mask[:]); err != nil {
		return 0, nil, err
	}
	data = make([]byte, size)
	if _, err := io.ReadFull(w.in, data); err != nil {
		return 0, nil, err
	}
	for i := range data {
		data[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, data, nil
}

// forward passes a client's messages on until it leaves.
func (w *webSocket) forward(st *engine.Stream, stdin bool) {
	for {
		op, data, err := w.receive()
		if err != nil {
			return
		}
		switch op {
		case opContinue, opText, opBinary:
			if stdin {
				if _, err := st.Write(data); err != nil {
					stdin = false // the process has closed it; its output goes on
				}
			}
		case opPing:
			if w.send(opPong, data) != nil {
				return
			}
		case opClose:
			return
		}
	}
}
