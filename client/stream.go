package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Stream is a connection that was taken over after the request: raw bytes
// towards the process, its output (multiplexed or raw) back.
type Stream struct {
	b         *body
	mediaType string
}

// hijack sends a request that turns its connection into a stream.
func (c *Client) hijack(ctx context.Context, q request) (*Stream, error) {
	q.hijack = true
	r, err := c.do(ctx, q)
	if err != nil {
		return nil, err
	}
	return &Stream{r.Body.(*body), r.Header.Get("Content-Type")}, nil
}

func (s *Stream) Read(p []byte) (int, error)  { return s.b.Read(p) }
func (s *Stream) Write(p []byte) (int, error) { return s.b.k.Write(p) }

// CloseWrite tells the process that its input has ended; output still comes.
func (s *Stream) CloseWrite() error {
	if w, ok := s.b.k.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.New("this connection cannot be closed one way")
}

// Close ends the stream both ways.
func (s *Stream) Close() error { return s.b.Close() }

// Raw tells whether the engine said that the output is not multiplexed.
func (s *Stream) Raw() bool { return strings.HasSuffix(s.mediaType, ".raw-stream") }

// maxFrame bounds the size a frame may claim; frames are copied piecewise, so
// this only tells a broken stream from a real one.
const maxFrame = 1 << 30

// Demultiplex copies a stream of Docker's frames ([stream,0,0,0,length big
// endian] and the bytes) to stdout and stderr until it ends. A nil writer
// drops its stream. Stream 3 carries an error of the engine.
func Demultiplex(stdout, stderr io.Writer, r io.Reader) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		n := int64(binary.BigEndian.Uint32(head[4:]))
		if n > maxFrame {
			return fmt.Errorf("broken output stream: a frame of %d bytes", n)
		}
		var w io.Writer
		switch head[0] {
		case 0, 1:
			w = stdout
		case 2:
			w = stderr
		case 3:
			b, err := io.ReadAll(io.LimitReader(r, min(n, maxErrorBody)))
			if err != nil {
				return err
			}
			return fmt.Errorf("error from the engine in the stream: %s", b)
		default:
			return fmt.Errorf("broken output stream: unknown stream %d", head[0])
		}
		if w == nil {
			w = io.Discard
		}
		if _, err := io.CopyN(w, r, n); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}
