package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"cale/build/keep"
	"cale/image"
	"cale/image/store"
)

// ingest is what is being written under one ref. Its fields but the atomic
// ones belong to whoever has it open.
type ingest struct {
	s       *Store
	ref     string
	path    string
	started time.Time
	open    bool // guarded by Store.mu

	f        *os.File
	expected digest.Digest
	digester digest.Digester
	total    atomic.Int64
	off      atomic.Int64
	updated  atomic.Int64 // in nanoseconds since 1970
}

func (w *ingest) status() content.Status {
	return content.Status{
		Ref: w.ref, Offset: w.off.Load(), Total: w.total.Load(), StartedAt: w.started, UpdatedAt: time.Unix(0, w.updated.Load()),
	}
}

// begin opens or continues; Store.mu is held.
func (w *ingest) begin(s *Store, desc ocispec.Descriptor) error {
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	w.s, w.f, w.expected = s, f, desc.Digest
	w.digester = digest.SHA256.Digester()
	if desc.Digest != "" && desc.Digest.Algorithm().Available() {
		w.digester = desc.Digest.Algorithm().Digester()
	}
	n, err := io.Copy(w.digester.Hash(), f)
	if err != nil {
		f.Close()
		return err
	}
	w.off.Store(n)
	w.total.Store(desc.Size)
	w.open = true
	return nil
}

// writer is an ingest that is open; it implements content.Writer.
type writer struct {
	*ingest
	closed bool
}

var _ content.Writer = (*writer)(nil)

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.closed {
		return 0, os.ErrClosed
	}
	n, err := w.f.Write(p)
	w.digester.Hash().Write(p[:n])
	w.off.Add(int64(n))
	w.updated.Store(time.Now().UnixNano())
	return n, err
}

// Digest implements content.Writer.
func (w *writer) Digest() digest.Digest { return w.digester.Digest() }

// Status implements content.Writer.
func (w *writer) Status() (content.Status, error) { return w.status(), nil }

// Truncate implements content.Writer; only to nothing.
func (w *writer) Truncate(size int64) error {
	if size != 0 {
		return fmt.Errorf("ingest %s: truncate to %d: %w", w.ref, size, errdefs.ErrNotImplemented)
	}
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w.off.Store(0)
	w.digester.Hash().Reset()
	return w.f.Truncate(0)
}

// Close implements content.Writer; what was written stays for the next writer
// of the ref, unless the ingest has ended.
func (w *writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	err := w.f.Close()
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.open = false
	if w.s.writes[w.ref] != w.ingest { // aborted, or committed
		if err2 := os.Remove(w.path); !errors.Is(err2, os.ErrNotExist) {
			err = errors.Join(err, err2)
		}
	}
	return err
}

// Commit implements content.Writer. Labels are for the book above.
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, _ ...content.Opt) error {
	if w.closed {
		return fmt.Errorf("ingest %s: commit after close: %w", w.ref, errdefs.ErrFailedPrecondition)
	}
	w.s.mu.Lock()
	aborted := w.s.writes[w.ref] != w.ingest
	w.s.mu.Unlock()
	if aborted {
		return errors.Join(fmt.Errorf("ingest %s was aborted: %w", w.ref, errdefs.ErrNotFound), w.Close())
	}
	err := w.commit(ctx, size, expected)
	if err == nil || errdefs.IsAlreadyExists(err) {
		w.s.mu.Lock()
		if w.s.writes[w.ref] == w.ingest {
			delete(w.s.writes, w.ref)
		}
		w.s.mu.Unlock()
	}
	return errors.Join(err, w.Close())
}

func (w *writer) commit(ctx context.Context, size int64, expected digest.Digest) error {
	if size > 0 && size != w.off.Load() {
		return fmt.Errorf("ingest %s: it has %d bytes, not %d: %w", w.ref, w.off.Load(), size, errdefs.ErrFailedPrecondition)
	}
	got := w.digester.Digest()
	if expected != "" && expected.Algorithm() != got.Algorithm() && expected.Algorithm().Available() {
		other := expected.Algorithm().Digester()
		if _, err := io.Copy(other.Hash(), io.NewSectionReader(w.f, 0, w.off.Load())); err != nil {
			return err
		}
		got = other.Digest()
	}
	if expected != "" && expected != got {
		return fmt.Errorf("ingest %s: it is %s, not %s: %w", w.ref, got, expected, errdefs.ErrFailedPrecondition)
	}
	d, err := image.ParseDigest(got.String())
	if err != nil {
		return err
	}
	if err := w.s.holds.Blob(ctx, d); err != nil {
		return err
	}
	if _, err := w.s.files.Stat(d); err == nil {
		if err := w.s.holds.Added(ctx, keep.Content{Blobs: []image.Digest{d}}); err != nil {
			return err
		}
		return fmt.Errorf("content %s: %w", got, errdefs.ErrAlreadyExists) // Close removes the file
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := w.s.files.Publish(w.path, d); err != nil {
		return err
	}
	return w.s.holds.Added(ctx, keep.Content{Blobs: []image.Digest{d}})
}
