package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"cale/image"
)

// Blob is a complete blob, open for reading. It stays readable if the blob is
// collected meanwhile.
type Blob struct {
	f    *os.File
	size int64
}

var (
	_ io.ReaderAt       = (*Blob)(nil)
	_ io.ReadSeekCloser = (*Blob)(nil)
)

// Size is the blob's size in bytes.
func (b *Blob) Size() int64 { return b.size }

// Read implements io.Reader.
func (b *Blob) Read(p []byte) (int, error) { return b.f.Read(p) }

// ReadAt implements io.ReaderAt.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) { return b.f.ReadAt(p, off) }

// Seek implements io.Seeker.
func (b *Blob) Seek(off int64, whence int) (int64, error) { return b.f.Seek(off, whence) }

// WriteTo implements io.WriterTo; to a socket the kernel copies by itself.
func (b *Blob) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, b.f) }

// Close implements io.Closer.
func (b *Blob) Close() error { return b.f.Close() }

func missing(d image.Digest) error { return fmt.Errorf("blob %s: %w", d, ErrNotFound) }

// Stat is the size of a blob in bytes, or ErrNotFound.
func (s *Store) Stat(d image.Digest) (int64, error) {
	if d.IsZero() {
		return 0, missing(d)
	}
	fi, err := os.Lstat(s.blobPath(d))
	if errors.Is(err, os.ErrNotExist) {
		return 0, missing(d)
	}
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w", d, err)
	}
	return fi.Size(), nil
}

// Open opens a blob, or fails with ErrNotFound.
func (s *Store) Open(d image.Digest) (*Blob, error) {
	if d.IsZero() {
		return nil, missing(d)
	}
	f, err := os.Open(s.blobPath(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil, missing(d)
	}
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	return &Blob{f: f, size: fi.Size()}, nil
}

// Read reads a whole blob of at most max bytes and verifies it: small blobs
// steer what is done with the large ones.
func (s *Store) Read(d image.Digest, max int64) ([]byte, error) {
	b, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.size > max {
		return nil, fmt.Errorf("blob %s: %d bytes where at most %d are expected", d, b.size, max)
	}
	raw := make([]byte, b.size)
	if _, err := io.ReadFull(b, raw); err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	h := d.Hash()
	h.Write(raw)
	if have := image.FromHash(h); have != d {
		return nil, fmt.Errorf("blob %s is damaged: its content is %s; remove the image and pull it again", d, have)
	}
	return raw, nil
}

// Remove removes a blob, whoever may need it. It is for a registry's explicit
// deletion; everything else is left to GC.
func (s *Store) Remove(d image.Digest) error {
	s.gc.Lock()
	defer s.gc.Unlock()
	if d.IsZero() {
		return missing(d)
	}
	err := os.Remove(s.blobPath(d))
	if errors.Is(err, os.ErrNotExist) {
		return missing(d)
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", d, err)
	}
	return s.forget([]image.Digest{d}, nil)
}
