package store

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cale/image"
)

// ErrMismatch says that content is not what its descriptor said.
var ErrMismatch = errors.New("content does not match its digest")

// Writer takes in one blob of known size and digest. What was written is kept
// if it is closed without Commit, or its process dies, and the next Writer
// goes on from there.
type Writer struct {
	s    *Store
	desc image.Descriptor
	key  string
	f    *os.File
	h    hash.Hash
	off  int64
	err  error // a Write failed: what is on disk may differ from what was hashed
	done bool
}

// Writer opens the ingest of desc. It fails with ErrExists if the blob is
// complete already. Only one Writer of a digest is open at a time: a second
// waits for the first to end, or for ctx. Pin the digest first, or GC may take
// the blob as soon as it is complete.
func (s *Store) Writer(ctx context.Context, desc image.Descriptor) (*Writer, error) {
	return s.writer(desc, func(key string) error { return s.acquire(ctx, key) })
}

// TryWriter is Writer for who must not wait: while another is open it fails
// with ErrBusy.
func (s *Store) TryWriter(desc image.Descriptor) (*Writer, error) {
	return s.writer(desc, func(key string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, busy := s.busy[key]; busy {
			return fmt.Errorf("ingest %s: %w", desc.Digest, ErrBusy)
		}
		s.busy[key] = make(chan struct{})
		return nil
	})
}

func (s *Store) writer(desc image.Descriptor, acquire func(key string) error) (*Writer, error) {
	if desc.Digest.IsZero() || desc.Size < 0 {
		return nil, fmt.Errorf("ingest: descriptor without digest or size")
	}
	key := desc.Digest.Algorithm() + "-" + desc.Digest.Encoded()
	if err := acquire(key); err != nil {
		return nil, err
	}
	w := &Writer{s: s, desc: desc, key: key}
	if err := w.open(); err != nil {
		s.release(key)
		return nil, err
	}
	return w, nil
}

// partPath is where the parts of a blob are until it is complete.
func (s *Store) partPath(d image.Digest) string {
	return filepath.Join(s.root, "ingest", d.Algorithm()+"-"+d.Encoded())
}

func (s *Store) acquire(ctx context.Context, key string) error {
	for {
		s.mu.Lock()
		wait, busy := s.busy[key]
		if !busy {
			s.busy[key] = make(chan struct{})
		}
		s.mu.Unlock()
		if !busy {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Store) release(key string) {
	s.mu.Lock()
	close(s.busy[key])
	delete(s.busy, key)
	s.mu.Unlock()
}

// absent fails with ErrExists if desc's blob is complete already.
func (s *Store) absent(desc image.Descriptor) error {
	size, err := s.Stat(desc.Digest)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case size != desc.Size:
		return fmt.Errorf("ingest %s: %w: it is here with %d bytes, not %d", desc.Digest, ErrMismatch, size, desc.Size)
	}
	return fmt.Errorf("ingest %s: %w", desc.Digest, ErrExists)
}

func (w *Writer) open() (err error) {
	if err := w.s.absent(w.desc); err != nil {
		return err
	}
	w.f, err = os.OpenFile(w.s.partPath(w.desc.Digest), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("ingest %s: %w", w.desc.Digest, err)
	}
	w.h = w.desc.Digest.Hash()
	if err = w.dropGaps(); err == nil {
		w.off, err = io.Copy(w.h, w.f)
	}
	if err != nil {
		w.f.Close()
		return fmt.Errorf("ingest %s: %w", w.desc.Digest, err)
	}
	return nil
}

// dropGaps cuts what Parts left to its beginning without gaps.
func (w *Writer) dropGaps() error {
	fi, err := w.f.Stat()
	if err != nil || fi.Size() <= w.desc.Size {
		return err
	}
	have, err := readJournal(w.f, w.desc.Size)
	if err != nil && !errors.Is(err, errJournal) {
		return err
	}
	n := int64(0)
	for n < int64(len(have)) && have[n] {
		n++
	}
	return w.f.Truncate(min(n*Block, w.desc.Size))
}

// Offset is how many bytes are there already.
func (w *Writer) Offset() int64 { return w.off }

// Partial reads the bytes 0 to Offset as of now.
func (w *Writer) Partial() io.Reader { return io.NewSectionReader(w.f, 0, w.off) }

// ReadAt implements io.ReaderAt for what was written. It may be called while
// Write or Close are; after a Close it fails with os.ErrClosed.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) { return w.f.ReadAt(p, off) }

// Write implements io.Writer. More than the descriptor's size is refused.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.off+int64(len(p)) > w.desc.Size {
		return 0, fmt.Errorf("ingest %s: %w: more than %d bytes", w.desc.Digest, ErrMismatch, w.desc.Size)
	}
	n, err := w.f.Write(p)
	w.h.Write(p[:n])
	w.off += int64(n)
	if err != nil {
		w.err = fmt.Errorf("ingest %s: %w", w.desc.Digest, err)
	}
	return n, w.err
}

// Restart throws away what is there.
func (w *Writer) Restart() error {
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := w.f.Truncate(0); err != nil {
		return err
	}
	w.h.Reset()
	w.off, w.err = 0, nil
	return nil
}

// Commit verifies size and digest and makes the blob visible. Content of the
// right size and the wrong digest is thrown away: no later Writer can use it.
func (w *Writer) Commit() error {
	if w.err != nil {
		return w.err
	}
	if w.off < w.desc.Size {
		return fmt.Errorf("ingest %s: %w after %d of %d bytes", w.desc.Digest, io.ErrUnexpectedEOF, w.off, w.desc.Size)
	}
	if have := image.FromHash(w.h); have != w.desc.Digest {
		err := fmt.Errorf("ingest %s: %w: it is %s", w.desc.Digest, ErrMismatch, have)
		return errors.Join(err, w.Restart())
	}
	if err := w.s.publish(w.f.Name(), w.desc.Digest); err != nil {
		return fmt.Errorf("ingest %s: %w", w.desc.Digest, err)
	}
	return w.Close()
}

// publish renames a verified file to its place among the blobs.
func (s *Store) publish(path string, d image.Digest) error {
	if err := os.Rename(path, s.blobPath(d)); err != nil {
		return err
	}
	s.mu.Lock()
	s.fresh = append(s.fresh, d)
	s.mu.Unlock()
	return nil
}

// Close ends the ingest; without a Commit before, what was written is kept.
func (w *Writer) Close() error {
	if w.done {
		return nil
	}
	w.done = true
	err := w.f.Close()
	if w.off == 0 {
		os.Remove(w.f.Name()) // nothing to keep; gone already if committed empty
	}
	w.s.release(w.key)
	return err
}

// Put stores a small blob whole. Pin its digest (image.FromBytes) first, or GC
// may take it at once.
func (s *Store) Put(mediaType string, raw []byte) (image.Descriptor, error) {
	desc := image.Descriptor{MediaType: mediaType, Digest: image.FromBytes(raw), Size: int64(len(raw))}
	return desc, s.PutAs(desc, raw)
}

// PutAs is Put for content whose descriptor is known, which is verified.
func (s *Store) PutAs(desc image.Descriptor, raw []byte) error {
	if desc.Size != int64(len(raw)) {
		return fmt.Errorf("ingest %s: %w: %d bytes, not %d", desc.Digest, ErrMismatch, len(raw), desc.Size)
	}
	w, err := s.Writer(context.Background(), desc)
	if errors.Is(err, ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Restart(); err != nil {
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return err
	}
	return w.Commit()
}
