package pull

import (
	"errors"
	"io"
	"sync"
)

// bufferSize is how far a download may be ahead of the unpacking, in bytes.
const bufferSize = 1 << 20

var errGone = errors.New("nobody reads")

// stream carries a layer from the download to the unpacking: first what was
// there before, then what arrives, by way of a bounded buffer.
type stream struct {
	before io.Reader // nil once read

	mu    sync.Mutex
	moved sync.Cond
	ring  []byte
	from  int // next to read
	held  int
	err   error // how it ends, once known
	gone  bool  // the reader left
}

// newStream makes a stream of which size bytes are expected.
func newStream(before io.Reader, size int64) *stream {
	s := &stream{before: before, ring: make([]byte, max(1, min(size, bufferSize)))}
	s.moved.L = &s.mu
	return s
}

// Write hands bytes on, waiting for room. Once the reader has left it fails.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := 0
	for done < len(p) {
		for s.held == len(s.ring) && !s.gone {
			s.moved.Wait()
		}
		if s.gone {
			return done, errGone
		}
		at := (s.from + s.held) % len(s.ring)
		n := copy(s.ring[at:min(len(s.ring), at+len(s.ring)-s.held)], p[done:])
		s.held += n
		done += n
		s.moved.Broadcast()
	}
	return done, nil
}

// Read gives what was there before, then what arrives.
func (s *stream) Read(p []byte) (int, error) {
	if s.before != nil {
		n, err := s.before.Read(p)
		if err == nil || err != io.EOF {
			return n, err
		}
		s.before = nil
		if n > 0 {
			return n, nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.held == 0 && s.err == nil {
		s.moved.Wait()
	}
	if s.held == 0 {
		return 0, s.err
	}
	n := copy(p, s.ring[s.from:min(len(s.ring), s.from+s.held)])
	s.from = (s.from + n) % len(s.ring)
	s.held -= n
	s.moved.Broadcast()
	return n, nil
}

// end says that nothing more comes: io.EOF, or why not.
func (s *stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	s.moved.Broadcast()
}

// leave says that nothing more is read.
func (s *stream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	s.moved.Broadcast()
}
