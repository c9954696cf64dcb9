package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// body is a response's body. Read to its end, it gives its connection back;
// closed before, it closes the connection.
type body struct {
	c        *Client
	k        *conn
	ctx      context.Context
	stop     func() bool
	src      io.Reader
	keep     bool // the connection can serve another request afterwards
	hijacked bool
	done     bool
	err      error
}

// frame decides how the body ends.
func (b *body) frame(method string, status int, h Header) error {
	switch {
	case method == "HEAD" || status == 204 || status == 304 || status == 101:
		b.src = eofReader{}
	case strings.EqualFold(h.Get("Transfer-Encoding"), "chunked"):
		b.src = &chunkReader{r: b.k.r}
	case h.Get("Content-Length") != "":
		n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("the engine's answer has a bad length %.40q", h.Get("Content-Length"))
		}
		b.src = &fixedReader{r: b.k.r, left: n}
	default:
		b.src, b.keep = b.k.r, false
	}
	return nil
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.done {
		return 0, errors.New("read of a closed body")
	}
	n, err := b.src.Read(p)
	if err != nil {
		if err != io.EOF && b.ctx.Err() != nil {
			err = b.ctx.Err()
		}
		b.err = err
		if err == io.EOF && !b.hijacked {
			b.finish(b.keep)
		}
	}
	return n, err
}

// Close ends the body. A short rest is read so that the connection can be used
// again.
func (b *body) Close() error {
	if b.done {
		return nil
	}
	if b.keep && b.err == nil {
		if f, ok := b.src.(*fixedReader); ok && f.left > 16<<10 {
			b.finish(false)
			return nil
		}
		if _, isChunked := b.src.(*chunkReader); isChunked && b.k.r.Buffered() == 0 {
			b.finish(false) // the rest may never come: a followed log, an event stream
			return nil
		}
		_, err := io.CopyN(io.Discard, b.src, 16<<10)
		b.finish(err == io.EOF)
		return nil
	}
	b.finish(false)
	return nil
}

func (b *body) finish(keep bool) {
	if b.done {
		return
	}
	b.done = true
	if b.stop() && keep {
		b.c.putIdle(b.k)
		return
	}
	b.k.Close()
}

type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }

type fixedReader struct {
	r    io.Reader
	left int64
}

func (f *fixedReader) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > f.left {
		p = p[:f.left]
	}
	n, err := f.r.Read(p)
	f.left -= int64(n)
	if f.left == 0 {
		return n, io.EOF // at once, so that the connection is given back
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunkReader decodes chunked encoding; an end without the last chunk is an
// error, so that a body that was cut off is never taken for a whole one.
type chunkReader struct {
	r       *bufio.Reader
	left    int64
	started bool
	end     bool
}

func (c *chunkReader) Read(p []byte) (int, error) {
	if c.end {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
		if c.end {
			return 0, io.EOF
		}
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (c *chunkReader) next() error {
	if c.started {
		if line, err := readLine(c.r); err != nil || line != "" {
			return badChunk(err)
		}
	}
	c.started = true
	line, err := readLine(c.r)
	if err != nil {
		return badChunk(err)
	}
	size, _, _ := strings.Cut(line, ";")
	n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 64)
	if err != nil || n < 0 {
		return badChunk(err)
	}
	if c.left = n; n > 0 {
		return nil
	}
	for { // trailers
		line, err := readLine(c.r)
		if err != nil {
			return badChunk(err)
		}
		if line == "" {
			c.end = true
			return nil
		}
	}
}

func badChunk(err error) error {
	switch {
	case err == nil:
		return errors.New("the engine's answer is not chunked as it says")
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}
