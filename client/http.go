package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxHeader    = 1 << 20 // bytes of a response's header we are willing to hold
	maxErrorBody = 1 << 20 // bytes of an error's body we read
	maxIdle      = 4       // connections kept for the next request
)

// Header is a response's header; keys are as textproto writes them.
type Header map[string]string

// Get returns the value of key, in any case.
func (h Header) Get(key string) string { return h[strings.ToLower(key)] }

// Response is an answer below 400. Its Body must be closed.
type Response struct {
	Status int
	Header Header
	Body   io.ReadCloser
}

// request is one request; body is nil, a []byte, or a stream that is sent
// chunked.
type request struct {
	method string
	path   string // without version
	query  url.Values
	header map[string]string
	json   any       // marshalled when not nil
	stream io.Reader // sent chunked when not nil
	hijack bool
}

// conn is one connection and what was read ahead of it.
type conn struct {
	net.Conn
	r *bufio.Reader
}

// do sends a request to the versioned API.
func (c *Client) do(ctx context.Context, q request) (*Response, error) {
	if _, err := c.Ping(ctx); err != nil {
		return nil, err
	}
	q.path = "/v" + c.version + q.path
	return c.send(ctx, q)
}

// send writes a request on a connection and reads the answer's header.
// A kept connection that the engine has closed meanwhile is replaced once, when
// the request can be repeated.
func (c *Client) send(ctx context.Context, q request) (*Response, error) {
	var payload []byte
	if q.json != nil {
		b, err := json.Marshal(q.json)
		if err != nil {
			return nil, err
		}
		payload = b
	}
	if k := c.takeIdle(); k != nil {
		r, err := c.exchange(ctx, k, q, payload)
		if err == nil || q.stream != nil || ctx.Err() != nil || !errors.Is(err, errNoAnswer) {
			return r, err
		}
	}
	// An engine that is just ending may take the connection and no more: the next one answers what only asks.
	for deadline := time.Now().Add(endingPatience); ; time.Sleep(20 * time.Millisecond) {
		nc, err := c.dial(ctx)
		if err != nil {
			return nil, err
		}
		r, err := c.exchange(ctx, &conn{nc, bufio.NewReaderSize(nc, 32<<10)}, q, payload)
		asks := q.method == "GET" && q.stream == nil && !q.hijack && !c.far
		if !asks || !errors.Is(err, errNoAnswer) || ctx.Err() != nil || time.Now().After(deadline) {
			return r, err
		}
	}
}

// endingPatience is how long an engine may take to end.
const endingPatience = 10 * time.Second

// errNoAnswer is a connection that ended before the first byte of an answer.
var errNoAnswer = errors.New("the engine closed the connection without an answer")

func (c *Client) exchange(ctx context.Context, k *conn, q request, payload []byte) (_ *Response, err error) {
	stop := context.AfterFunc(ctx, func() { k.SetDeadline(time.Unix(1, 0)) })
	answered := false // the body owns the connection
	defer func() {
		if err != nil && !answered {
			stop()
			k.Close()
			if ctx.Err() != nil {
				err = ctx.Err()
			}
		}
	}()
	werr := writeRequest(k, q, payload)
	if werr != nil && q.stream == nil {
		return nil, fmt.Errorf("%w (%v)", errNoAnswer, werr)
	}
	var source *sourceError
	if errors.As(werr, &source) {
		return nil, source.err // the engine still waits for the rest: there will be no answer
	}
	// After a failed upload the engine's refusal may still be there to read.
	status, header, err := readHead(k.r)
	if err != nil {
		if werr != nil {
			err = werr
		}
		return nil, err
	}
	b := &body{c: c, k: k, stop: stop, ctx: ctx, keep: werr == nil && !q.hijack && !strings.EqualFold(header.Get("Connection"), "close")}
	if err := b.frame(q.method, status, header); err != nil {
		return nil, err
	}
	answered = true
	if status == 101 || q.hijack && status < 300 {
		b.src, b.keep, b.hijacked = k.r, false, true
	}
	r := &Response{Status: status, Header: header, Body: b}
	if status >= 400 || status == 304 {
		defer b.Close()
		return nil, readError(r)
	}
	return r, nil
}

func writeRequest(k *conn, q request, payload []byte) error {
	var b bytes.Buffer
	target := q.path
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: cale\r\nUser-Agent: cale\r\n", q.method, target)
	for key, v := range q.header {
		if strings.ContainsAny(v, "\r\n") {
			return fmt.Errorf("header %s holds a line break", key)
		}
		fmt.Fprintf(&b, "%s: %s\r\n", key, v)
	}
	if q.hijack {
		b.WriteString("Connection: Upgrade\r\nUpgrade: tcp\r\n")
	}
	switch {
	case q.stream != nil:
		if q.header["Content-Type"] == "" {
			b.WriteString("Content-Type: application/x-tar\r\n")
		}
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		if _, err := k.Write(b.Bytes()); err != nil {
			return err
		}
		return writeChunks(k, q.stream)
	case payload != nil:
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(payload))
		b.Write(payload)
	case q.method == "POST" || q.method == "PUT":
		b.WriteString("Content-Length: 0\r\n\r\n")
	default:
		b.WriteString("\r\n")
	}
	_, err := k.Write(b.Bytes())
	return err
}

// writeChunks sends r with chunked encoding. A source that fails is not ended
// properly, so that the engine does not take half a stream for a whole one.
func writeChunks(w io.Writer, r io.Reader) error {
	const size, room = 64 << 10, 18 // room for the length before the data
	buf := make([]byte, room+size+2)
	for {
		n, rerr := r.Read(buf[room : room+size])
		if n > 0 {
			head := strconv.FormatInt(int64(n), 16) + "\r\n"
			copy(buf[room-len(head):], head)
			copy(buf[room+n:], "\r\n")
			if _, err := w.Write(buf[room-len(head) : room+n+2]); err != nil {
				return err
			}
		}
		if rerr == io.EOF {
			_, err := io.WriteString(w, "0\r\n\r\n")
			return err
		}
		if rerr != nil {
			return &sourceError{rerr}
		}
	}
}

// sourceError is a failure to read what is to be sent.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

// readHead reads the status line and header, past informational answers.
func readHead(r *bufio.Reader) (int, Header, error) {
	for {
		line, err := readLine(r)
		if err != nil {
			return 0, nil, fmt.Errorf("%w (%v)", errNoAnswer, err)
		}
		proto, rest, _ := strings.Cut(line, " ")
		code, _, _ := strings.Cut(rest, " ")
		status, err := strconv.Atoi(code)
		if err != nil || !strings.HasPrefix(proto, "HTTP/1.") || status < 100 || status > 999 {
			return 0, nil, fmt.Errorf("the engine's answer is not HTTP: %.80q", line)
		}
		header, total := Header{}, 0
		for {
			line, err := readLine(r)
			if err != nil {
				return 0, nil, fmt.Errorf("the engine's answer ended inside its header: %w", err)
			}
			if line == "" {
				break
			}
			if total += len(line); total > maxHeader {
				return 0, nil, errors.New("the engine's answer has a header that is too large")
			}
			key, value, ok := strings.Cut(line, ":")
			if !ok {
				return 0, nil, fmt.Errorf("the engine's answer has a bad header line: %.80q", line)
			}
			header[strings.ToLower(key)] = strings.TrimSpace(value)
		}
		if status >= 200 || status == 101 {
			return status, header, nil
		}
	}
}

func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			return strings.TrimRight(string(line), "\r\n"), nil
		}
		if err != bufio.ErrBufferFull {
			if err == io.EOF && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		if len(line) > maxHeader {
			return "", errors.New("line too long")
		}
	}
}

// readError turns an answer of 400 or more (and 304) into an *Error.
func readError(r *Response) error {
	e := &Error{Status: r.Status}
	b, _ := io.ReadAll(io.LimitReader(r.Body, maxErrorBody))
	var m struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(b, &m) == nil && m.Message != "" {
		e.Message = m.Message
	} else {
		e.Message = strings.TrimSpace(string(b))
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("the engine answered with status %d", r.Status)
	}
	return e
}

func (c *Client) takeIdle() *conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.idle)
	if n == 0 {
		return nil
	}
	k := c.idle[n-1]
	c.idle = c.idle[:n-1]
	return k
}

func (c *Client) putIdle(k *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) >= maxIdle {
		k.Close()
		return
	}
	c.idle = append(c.idle, k)
}
