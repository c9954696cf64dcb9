package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cale/image"
)

const uploadPrefix = "upload-"

// Upload takes in a blob whose digest is told only at its end, as registries
// do. It is kept, by its ID, until Commit or Cancel, or GC a day after its last
// change.
type Upload struct {
	s   *Store
	id  string
	f   *os.File
	h   hash.Hash // sha256 of what was written, nil if not at the end in this process
	off int64
}

// NewUpload begins an upload.
func (s *Store) NewUpload() (*Upload, error) {
	var b [16]byte
	rand.Read(b[:])
	return s.upload(hex.EncodeToString(b[:]), os.O_CREATE|os.O_EXCL)
}

// OpenUpload continues an upload, or fails with ErrNotFound. Two Uploads of
// one ID must not be used at the same time.
func (s *Store) OpenUpload(id string) (*Upload, error) {
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("upload: %w", ErrNotFound)
	}
	return s.upload(id, 0)
}

func (s *Store) upload(id string, flags int) (*Upload, error) {
	f, err := os.OpenFile(filepath.Join(s.root, "ingest", uploadPrefix+id), os.O_RDWR|unix.O_NOFOLLOW|flags, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("upload %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("upload %s: %w", id, err)
	}
	u := &Upload{s: s, id: id, f: f, h: image.Digest{}.Hash()}
	if u.off, err = io.Copy(u.h, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("upload %s: %w", id, err)
	}
	return u, nil
}

// ID names the upload.
func (u *Upload) ID() string { return u.id }

// Offset is how many bytes are there.
func (u *Upload) Offset() int64 { return u.off }

// Write implements io.Writer.
func (u *Upload) Write(p []byte) (int, error) {
	n, err := u.f.Write(p)
	u.h.Write(p[:n])
	u.off += int64(n)
	return n, err
}

// Commit verifies the content against d, makes it a blob and ends the upload.
// On ErrMismatch the upload is over too: its content can be of no use.
func (u *Upload) Commit(d image.Digest) (image.Descriptor, error) {
	desc := image.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: u.off}
	if d.IsZero() {
		return desc, fmt.Errorf("upload %s: no digest", u.id)
	}
	h := u.h
	if d.Algorithm() != "sha256" {
		h = d.Hash()
		if _, err := io.Copy(h, io.NewSectionReader(u.f, 0, u.off)); err != nil {
			return desc, fmt.Errorf("upload %s: %w", u.id, err)
		}
	}
	if have := image.FromHash(h); have != d {
		u.Cancel()
		return desc, fmt.Errorf("upload %s: %w: it is %s", u.id, ErrMismatch, have)
	}
	if err := u.s.publish(u.f.Name(), d); err != nil {
		return desc, fmt.Errorf("upload %s: %w", u.id, err)
	}
	return desc, u.f.Close()
}

// Cancel throws the upload away.
func (u *Upload) Cancel() error {
	u.f.Close()
	return os.Remove(u.f.Name())
}

// Close leaves the upload for OpenUpload to continue.
func (u *Upload) Close() error { return u.f.Close() }
