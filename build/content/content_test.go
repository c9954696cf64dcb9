package content

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"cale/build/keep"
	"cale/image"
	"cale/image/store"
)

// owner is an image store's owner that can be hard of hearing.
type owner struct {
	keep.Direct
	added func(context.Context) error
}

func (o *owner) Added(ctx context.Context, c keep.Content, sync bool) error {
	if o.added != nil {
		if err := o.added(ctx); err != nil {
			return err
		}
	}
	return o.Direct.Added(ctx, c, sync)
}

// opened is an image store at root and the cache's view of it.
func opened(t *testing.T, root string) (*owner, *Store) {
	t.Helper()
	st, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	o := &owner{Direct: keep.Direct{Store: st}}
	h, err := keep.OpenHolds(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	files, err := store.OpenShared(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(files, h, filepath.Join(root, "build", "ingest"))
	if err != nil {
		t.Fatal(err)
	}
	return o, s
}

func write(ctx context.Context, s *Store, ref, data string) error {
	w, err := s.Writer(ctx, content.WithRef(ref), content.WithDescriptor(ocispec.Descriptor{Digest: digest.FromString(data)}))
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.WriteString(w, data); err != nil {
		return err
	}
	return w.Commit(ctx, int64(len(data)), digest.FromString(data))
}

// TestCancelledBetweenBlobAndNote: a blob that a build which ended early left
// in its place is the next one's, and survives a reboot as that.
func TestCancelledBetweenBlobAndNote(t *testing.T) {
	for name, deaf := range map[string]error{"cancelled": nil, "not told": errors.New("the line is cut")} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			o, s := opened(t, root)
			ctx, cancel := context.WithCancel(t.Context())
			o.added = func(ctx context.Context) error {
				cancel()
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return deaf
			}
			const data = "what was built"
			if err := write(ctx, s, "one", data); !errors.Is(err, deaf) {
				t.Fatal(err)
			}
			o.added = nil
			if err := write(t.Context(), s, "two", data); !errdefs.IsAlreadyExists(err) {
				t.Fatalf("it is written again: %v", err)
			}
			d := image.FromBytes([]byte(data))
			if err := o.Store.SetName("named", image.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(data))}); err != nil {
				t.Fatal(err)
			}
			rebooted(t, o.Store, root)
			o, _ = opened(t, root)
			if _, err := o.Store.Stat(d); err != nil {
				t.Errorf("after a reboot: %v", err)
			}
		})
	}
}

// TestAbortWhileWritten: an ingest that begins after an abort has nothing to do
// with what the aborted one's writer still does.
func TestAbortWhileWritten(t *testing.T) {
	root := t.TempDir()
	o, s := opened(t, root)
	begin := func(data string) content.Writer {
		t.Helper()
		w, err := s.Writer(t.Context(), content.WithRef("ref"), content.WithDescriptor(ocispec.Descriptor{Digest: digest.FromString(data)}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
		return w
	}
	old := begin("the old one, which is longer")
	if err := s.Abort(t.Context(), "ref"); err != nil {
		t.Fatal(err)
	}
	w := begin("the new one")
	if _, err := io.WriteString(old, " still"); err != nil {
		t.Fatal(err)
	}
	if err := old.Commit(t.Context(), 0, ""); !errdefs.IsNotFound(err) {
		t.Errorf("an aborted ingest is committed: %v", err)
	}
	if err := w.Commit(t.Context(), 0, digest.FromString("the new one")); err != nil {
		t.Fatal(err)
	}
	b, err := o.Store.Read(image.FromBytes([]byte("the new one")), 1<<10)
	if err != nil || string(b) != "the new one" {
		t.Errorf("the blob is %q, %v", b, err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "build", "ingest")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// rebooted closes a store and makes it one of another run of the kernel.
func rebooted(t *testing.T, s *store.Store, root string) {
	t.Helper()
	s.Close()
	db, err := bolt.Open(filepath.Join(root, "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("system")).Put([]byte("boot"), []byte("another")) }); err != nil {
		t.Fatal(err)
	}
}
