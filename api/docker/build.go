package docker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"cale/audit"
	"cale/engine"
)

// Builds are the builder's, a process of its own that serves these calls (api/build): they are passed on to its socket.

// forward is a request for the builder.
func (s *Server) forward(ctx context.Context, r *request, path string) (*http.Request, error) {
	if s.opts.Builder == nil {
		return nil, notBuilt{"build in this daemon"}
	}
	q := r.Request.Clone(ctx)
	q.URL = &url.URL{Scheme: "http", Host: "builder", Path: path, RawQuery: r.URL.RawQuery}
	q.RequestURI, q.Host = "", "builder"
	audit.SetPeer(q.Header, peerOf(ctx))
	return q, nil
}

func (s *Server) dialBuilder(ctx context.Context) (net.Conn, error) {
	c, err := s.opts.Builder(ctx)
	if err != nil {
		return nil, &engine.Error{Class: engine.ErrUnavailable, Text: "the builder: " + err.Error(), Cause: err}
	}
	return c, nil
}

// buildCall passes a call and its answer on as they come.
func buildCall(path string) handler {
	return func(s *Server, w http.ResponseWriter, r *request) error { return s.passOn(w, r, path) }
}

// buildPrune has what of the build cache is not in use removed, and what only the cache needed of the image store.
func (s *Server) buildPrune(w http.ResponseWriter, r *request) error {
	a, err := s.askBuilder(r, "/build/prune")
	if err != nil {
		return err
	}
	defer a.Body.Close()
	answer, err := io.ReadAll(a.Body)
	if err != nil {
		return fmt.Errorf("the builder's answer: %w", err)
	}
	// Whoever looks now finds it gone.
	if err := s.engine.Collect(r.Context()); err != nil {
		return err
	}
	w.Header().Set("Content-Type", a.Header.Get("Content-Type"))
	w.WriteHeader(a.StatusCode)
	_, err = w.Write(answer)
	return err
}

func (s *Server) passOn(w http.ResponseWriter, r *request, path string) error {
	sent := &untilEnd{ReadCloser: r.Body}
	r.Body = sent
	a, err := s.askBuilder(r, path)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	w.Header().Set("Content-Type", a.Header.Get("Content-Type"))
	if !sent.ended.Load() {
		// What the builder leaves of a request is still being read when this one is over: no other may follow it.
		w.Header().Set("Connection", "close")
	}
	w.WriteHeader(a.StatusCode)
	flush := http.NewResponseController(w)
	// The status goes out at once: the client may be waiting for it to send more.
	_ = flush.EnableFullDuplex()
	buf := make([]byte, 32<<10)
	for {
		n, err := a.Body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return nil // the client has left
			}
			_ = flush.Flush()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// untilEnd notes whether all of a request was read.
type untilEnd struct {
	io.ReadCloser
	ended atomic.Bool
}

func (u *untilEnd) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if err == io.EOF {
		u.ended.Store(true)
	}
	return n, err
}

func (s *Server) askBuilder(r *request, path string) (*http.Response, error) {
	q, err := s.forward(r.Context(), r, path)
	if err != nil {
		return nil, err
	}
	q.Close = false
	q.Header.Del("Connection")
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dialBuilder(ctx) },
		// Not DisableKeepAlives: who is told that the connection ends reads nothing of a request that he refuses, and
		// his answer is lost to the writing that fails.
		IdleConnTimeout: time.Second, DisableCompression: true,
	}
	return t.RoundTrip(q)
}

// buildUpgrade gives the client a connection with the builder: BuildKit's API, or a session that the builder asks the
// client in.
func buildUpgrade(path string) handler {
	return func(s *Server, w http.ResponseWriter, r *request) error {
		switch proto := r.Header.Get("Upgrade"); proto {
		case "h2c":
		case "":
			return invalid("no upgrade proto in request")
		default:
			return invalid("protocol %s not supported", proto)
		}
		q, err := s.forward(r.Context(), r, path)
		if err != nil {
			return err
		}
		q.Body = nil
		there, err := s.dialBuilder(r.Context())
		if err != nil {
			return err
		}
		defer there.Close()
		here, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return fmt.Errorf("take the connection over: %w", err)
		}
		defer here.Close()
		if err := upgrade(q, there); err != nil {
			_, _ = fmt.Fprintf(here, "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n")
			return nil
		}
		join(here, buf.Reader, there)
		return nil
	}
}

// buildHTTP2 gives a client that begins with HTTP/2 a connection with BuildKit's API: gRPC without an upgrade, as newer
// clients have it. r is the preface, as net/http reads it.
func (s *Server) buildHTTP2(w http.ResponseWriter, r *http.Request) error {
	q, err := s.forward(r.Context(), &request{Request: r}, "/grpc")
	if err != nil {
		return err
	}
	q.Method, q.Proto, q.ProtoMajor, q.ProtoMinor, q.Body, q.ContentLength = http.MethodPost, "HTTP/1.1", 1, 1, nil, 0
	q.Header.Set("Upgrade", "h2c")
	there, err := s.dialBuilder(r.Context())
	if err != nil {
		return err
	}
	defer there.Close()
	if err := upgrade(q, there); err != nil {
		return fmt.Errorf("the builder: %w", err)
	}
	answers := bufio.NewReader(there)
	a, err := http.ReadResponse(answers, q)
	if err != nil {
		return fmt.Errorf("the builder's answer: %w", err)
	}
	if a.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the builder answers %s", a.Status)
	}
	here, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("take the connection over: %w", err)
	}
	defer here.Close()
	if _, err := io.WriteString(there, "PRI * HTTP/2.0\r\n\r\n"); err != nil {
		return nil // the builder died: the client sees the connection's end
	}
	join(here, buf.Reader, readAhead{there, answers})
	return nil
}

// readAhead is a connection of which some may have been read already.
type readAhead struct {
	net.Conn
	r *bufio.Reader
}

func (c readAhead) Read(p []byte) (int, error) { return c.r.Read(p) }

// upgrade writes a request with its Connection and Upgrade headers.
func upgrade(q *http.Request, to net.Conn) error {
	q.Header.Set("Connection", "Upgrade")
	return q.Write(to)
}

// join copies both ways until one side ends.
func join(here net.Conn, ahead *bufio.Reader, there net.Conn) {
	done := make(chan struct{}, 2)
	go func() {
		_, _ = io.Copy(there, ahead)
		done <- struct{}{}
	}()
	go func() {
		_, _ = io.Copy(here, there)
		done <- struct{}{}
	}()
	<-done
	here.Close()
	there.Close()
	<-done
}

// buildCache lists what builds keep. Where nothing was ever built no builder is started to be asked.
func (s *Server) buildCache(r *request) ([]json.RawMessage, error) {
	none := []json.RawMessage{}
	if s.opts.Builder == nil || !s.engine.HasBuilt() {
		return none, nil
	}
	a, err := s.askBuilder(r, "/build/cache")
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the builder answers %s", a.Status)
	}
	list := none
	if err := json.NewDecoder(a.Body).Decode(&list); err != nil {
		return nil, fmt.Errorf("the builder's answer: %w", err)
	}
	return list, nil
}
