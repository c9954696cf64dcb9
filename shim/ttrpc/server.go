package ttrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// maxConns bounds the connections a server keeps; a further one waits in the
	// socket's backlog.
	maxConns = 64
	// maxCalls bounds the unfinished calls of one connection: beyond it the
	// server stops reading from it, so only that client waits.
	maxCalls = 512
	// writeTimeout ends a connection whose client does not take its answers.
	writeTimeout = 30 * time.Second
)

// Handler answers one call. Payload and answer are protobuf messages; an error
// that is (or wraps) a *Status keeps its class, any other becomes Unknown. The
// context ends when the client goes away or its timeout passes.
type Handler func(ctx context.Context, service, method string, payload []byte) ([]byte, error)

// Server serves calls on the connections of one listener.
type Server struct {
	Handler Handler
	// Allow judges a new connection, for peer credentials; nil allows all.
	Allow func(net.Conn) bool

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	done  bool
}

// Serve accepts connections until the listener is closed by Close or fails.
func (s *Server) Serve(l net.Listener) error {
	slots := make(chan struct{}, maxConns)
	for {
		slots <- struct{}{}
		c, err := accept(l)
		if err != nil {
			return err
		}
		if (s.Allow != nil && !s.Allow(c)) || !s.track(c) {
			c.Close()
			<-slots
			continue
		}
		go func() {
			s.serveConn(c)
			s.untrack(c)
			<-slots
		}()
	}
}

// acceptPause is how long a server waits for what it lacks: descriptors or
// memory, which others give back.
const acceptPause = 50 * time.Millisecond

// accept takes the next connection. That one could not be taken is no reason
// to serve no more.
func accept(l net.Listener) (net.Conn, error) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			return c, nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
			time.Sleep(acceptPause)
		case errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.EINTR):
		default:
			return nil, err
		}
	}
}

// Conns returns how many clients are connected.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Close ends all connections and refuses new ones. The listener is its owner's.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	for c := range s.conns {
		c.Close()
	}
}

func (s *Server) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return false
	}
	if s.conns == nil {
		s.conns = make(map[net.Conn]struct{})
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) untrack(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Server) serveConn(c net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	var (
		write sync.Mutex
		calls = make(chan struct{}, maxCalls)
		hbuf  [headerSize]byte
	)
	defer cancel()
	reply := func(stream uint32, r response) {
		data := r.append(nil)
		if len(data) > MaxMessage {
			data = (&response{status: &Status{Code: ResourceExhausted, Message: ErrTooLarge.Error()}}).append(nil)
		}
		b := appendFrame(make([]byte, 0, headerSize+len(data)), stream, typeResponse, data)
		write.Lock()
		defer write.Unlock()
		c.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := c.Write(b); err != nil {
			c.Close()
		}
	}
	for {
		h, err := readHeader(c, &hbuf)
		if err != nil {
			return
		}
		data := make([]byte, h.length)
		if _, err := io.ReadFull(c, data); err != nil {
			return
		}
		// Clients use odd stream numbers; data frames belong to streaming calls,
		// which no shim method we serve has.
		if h.stream%2 == 0 || h.kind != typeRequest {
			reply(h.stream, response{status: &Status{Code: InvalidArgument, Message: "ttrpc: only unary requests are served"}})
			continue
		}
		var r request
		if err := r.unmarshal(data); err != nil {
			reply(h.stream, response{status: &Status{Code: InvalidArgument, Message: "ttrpc: malformed request"}})
			continue
		}
		calls <- struct{}{}
		go func() {
			defer func() { <-calls }()
			cctx := ctx
			if r.timeout > 0 {
				var stop context.CancelFunc
				cctx, stop = context.WithTimeout(ctx, r.timeout)
				defer stop()
			}
			out, err := s.Handler(cctx, r.service, r.method, r.payload)
			if err != nil {
				reply(h.stream, response{status: statusOf(err)})
				return
			}
			// An empty payload is a valid empty message.
			reply(h.stream, response{status: &Status{}, payload: out})
		}()
	}
}

func statusOf(err error) *Status {
	if s, ok := errors.AsType[*Status](err); ok {
		if s.Message == err.Error() {
			return s
		}
		return &Status{Code: s.Code, Message: err.Error(), Detail: s.Detail}
	}
	code := Unknown
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code = DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = Canceled
	}
	return &Status{Code: code, Message: err.Error()}
}
