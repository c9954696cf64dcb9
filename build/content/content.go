// Package content shows the image store's blobs to BuildKit. The build cache
// sees those that it holds; what it writes is a blob like any other, so that
// no image, built or pulled, has its bytes twice.
package content

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"cale/build/keep"
	"cale/image"
	"cale/image/store"
)

// Store implements containerd's content.Store. It knows no labels: that is for
// the book above it.
type Store struct {
	files *store.Shared
	holds *keep.Holds
	dir   string // of what is being written

	mu     sync.Mutex
	writes map[string]*ingest
	begun  uint64 // ingests so far: each has a file of its own
}

var _ content.Store = (*Store)(nil)

// Open keeps what is being written in dir, on the image store's filesystem,
// and removes what an earlier process left there.
func Open(files *store.Shared, holds *keep.Holds, dir string) (*Store, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Store{files: files, holds: holds, dir: dir, writes: map[string]*ingest{}}, nil
}

// Info implements content.Store. A blob of the image store that the cache does
// not hold yet is held from here on: who asks is about to use it.
func (s *Store) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	d, err := image.ParseDigest(dgst.String())
	if err != nil {
		return content.Info{}, fmt.Errorf("content %q: %w: %v", dgst, errdefs.ErrInvalidArgument, err)
	}
	if !s.holds.HasBlob(d) {
		if _, err := s.files.Known(d); errors.Is(err, store.ErrNotFound) {
			return content.Info{}, missing(dgst)
		}
		if err := s.holds.Blob(ctx, d); err != nil {
			return content.Info{}, err
		}
	}
	size, err := s.files.Known(d)
	if errors.Is(err, store.ErrNotFound) {
		return content.Info{}, missing(dgst)
	}
	if err != nil {
		return content.Info{}, err
	}
	return content.Info{Digest: dgst, Size: size}, s.holds.Tell(ctx)
}

// restores bounds how often a blob is brought back that is collected before it
// can be opened.
const restores = 3

func missing(d digest.Digest) error { return fmt.Errorf("content %s: %w", d, errdefs.ErrNotFound) }

// Update implements content.Store.
func (s *Store) Update(context.Context, content.Info, ...string) (content.Info, error) {
	return content.Info{}, fmt.Errorf("label content: %w", errdefs.ErrNotImplemented)
}

// Walk implements content.Store, for what is held.
func (s *Store) Walk(ctx context.Context, fn content.WalkFunc, fs ...string) error {
	f, err := filters.ParseAll(fs...)
	if err != nil {
		return err
	}
	for _, d := range s.holds.Blobs() {
		size, err := s.files.Known(d)
		if errors.Is(err, store.ErrNotFound) {
			// Held, and never completed.
			if err := s.holds.DropBlob(ctx, d); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		info := content.Info{Digest: digest.Digest(d.String()), Size: size}
		if !f.Match(content.AdaptInfo(info)) {
			continue
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements content.Store: the cache needs the blob no more. Whether
// it goes is for the image store to find out.
func (s *Store) Delete(ctx context.Context, dgst digest.Digest) error {
	d, err := image.ParseDigest(dgst.String())
	if err != nil {
		return err
	}
	if !s.holds.HasBlob(d) {
		return missing(dgst)
	}
	return s.holds.DropBlob(ctx, d)
}

// ReaderAt implements content.Store. A blob that is not kept beside its unpacked
// layer comes back for it.
func (s *Store) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	d, err := image.ParseDigest(desc.Digest.String())
	if err != nil {
		return nil, err
	}
	b, err := s.files.Open(d)
	for try := 0; errors.Is(err, store.ErrNotFound) && try < restores; try++ {
		if _, known := s.files.Known(d); known != nil {
			return nil, missing(desc.Digest)
		}
		if err := s.holds.Keeper.Restore(ctx, d); err != nil {
			return nil, err
		}
		b, err = s.files.Open(d)
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil, missing(desc.Digest)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Status implements content.Store.
func (s *Store) Status(_ context.Context, ref string) (content.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.writes[ref]; w != nil {
		return w.status(), nil
	}
	return content.Status{}, fmt.Errorf("ingest %s: %w", ref, errdefs.ErrNotFound)
}

// ListStatuses implements content.Store.
func (s *Store) ListStatuses(_ context.Context, fs ...string) ([]content.Status, error) {
	f, err := filters.ParseAll(fs...)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []content.Status
	for _, w := range s.writes {
		if st := w.status(); f.Match(adapt(st)) {
			out = append(out, st)
		}
	}
	return out, nil
}

func adapt(st content.Status) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 1 && path[0] == "ref" {
			return st.Ref, true
		}
		return "", false
	})
}

// Abort implements content.Store. Whoever writes the ingest can go on, but not
// commit it.
func (s *Store) Abort(_ context.Context, ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.writes[ref]
	if w == nil {
		return fmt.Errorf("ingest %s: %w", ref, errdefs.ErrNotFound)
	}
	delete(s.writes, ref)
	if w.open {
		return nil // removed when it is closed
	}
	return os.Remove(w.path)
}

// Writer implements content.Store. What was written and not committed can be
// continued under its ref while this process lives.
func (s *Store) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Ref == "" {
		return nil, fmt.Errorf("ingest without a ref: %w", errdefs.ErrInvalidArgument)
	}
	if o.Desc.Digest != "" {
		if _, err := s.Info(ctx, o.Desc.Digest); err == nil {
			return nil, fmt.Errorf("content %s: %w", o.Desc.Digest, errdefs.ErrAlreadyExists)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.writes[o.Ref]
	if w == nil {
		s.begun++
		w = &ingest{ref: o.Ref, path: filepath.Join(s.dir, strconv.FormatUint(s.begun, 10)), started: time.Now()}
		w.updated.Store(w.started.UnixNano())
	} else if w.open {
		return nil, fmt.Errorf("ingest %s is being written: %w", o.Ref, errdefs.ErrUnavailable)
	}
	if err := w.begin(s, o.Desc); err != nil {
		return nil, fmt.Errorf("ingest %s: %w", o.Ref, err)
	}
	s.writes[o.Ref] = w
	return &writer{ingest: w}, nil
}
