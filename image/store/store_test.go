package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"cale/image"
)

func dir(t testing.TB) string {
	t.Helper()
	d, err := os.MkdirTemp("/dev/shm", "cale-store-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

func openAt(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func descriptor(raw []byte) image.Descriptor {
	return image.Descriptor{MediaType: "x", Digest: image.FromBytes(raw), Size: int64(len(raw))}
}

func noise(n int, seed int64) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

// putImage stores a small image, without its layer unpacked, and returns its
// manifest's descriptor and all digests it is made of.
func putImage(t testing.TB, s *Store, seed int64) (image.Descriptor, []image.Digest) {
	t.Helper()
	put := func(mt string, raw []byte) image.Descriptor {
		d, err := s.Put(mt, raw)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	layer := put(image.MediaTypeLayer, noise(1000, seed))
	host := image.Host()
	c := &image.Config{Platform: host, DiffIDs: []image.Digest{layer.Digest}, Author: fmt.Sprint(seed)}
	raw, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	config := put(image.MediaTypeConfig, raw)
	m := &image.Manifest{Config: config, Layers: []image.Descriptor{layer}}
	raw, err = m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d := put(image.MediaTypeManifest, raw)
	return d, []image.Digest{layer.Digest, config.Digest, d.Digest}
}

func TestIngest(t *testing.T) {
	root := dir(t)
	s := openAt(t, root)
	raw := noise(100000, 1)
	desc := descriptor(raw)
	ctx := context.Background()

	w, err := s.Writer(ctx, desc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw[:60000]); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("commit of a part: %v", err)
	}
	w.Close()
	if _, err := s.Open(desc.Digest); !errors.Is(err, ErrNotFound) {
		t.Errorf("a part is visible: %v", err)
	}
	// It goes on where it was, and what is there can be read.
	w, err = s.Writer(ctx, desc)
	if err != nil || w.Offset() != 60000 {
		t.Fatalf("offset %d, %v", w.Offset(), err)
	}
	if b, err := io.ReadAll(w.Partial()); err != nil || !bytes.Equal(b, raw[:60000]) {
		t.Errorf("partial: %d bytes, %v", len(b), err)
	}
	if _, err := w.Write(raw[60000:]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte{0}); !errors.Is(err, ErrMismatch) {
		t.Errorf("one byte too many: %v", err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if b, err := s.Read(desc.Digest, desc.Size); err != nil || !bytes.Equal(b, raw) {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	if _, err := s.Read(desc.Digest, desc.Size-1); err == nil {
		t.Error("more than asked for was read")
	}
	if _, err := s.Writer(ctx, desc); !errors.Is(err, ErrExists) {
		t.Errorf("writer of what is there: %v", err)
	}
	if list, _ := os.ReadDir(filepath.Join(root, "ingest")); len(list) != 0 {
		t.Errorf("left: %v", list)
	}
}

// TestIngestOfLies: wrong bytes of the right length never become a blob, and
// do not spoil the next attempt (containerd#3974).
func TestIngestOfLies(t *testing.T) {
	s := openAt(t, dir(t))
	raw := noise(5000, 1)
	desc := descriptor(raw)
	for _, part := range []int{0, 100, 5000} {
		w, err := s.Writer(context.Background(), desc)
		if err != nil {
			t.Fatal(err)
		}
		w.Restart()
		w.Write(noise(part, 2))
		if part == 5000 {
			if err := w.Commit(); !errors.Is(err, ErrMismatch) {
				t.Errorf("commit: %v", err)
			}
		}
		w.Close()
	}
	w, err := s.Writer(context.Background(), desc)
	if err != nil || w.Offset() != 0 {
		t.Fatalf("offset %d, %v", w.Offset(), err)
	}
	w.Write(raw)
	if err := w.Commit(); err != nil {
		t.Error(err)
	}
	if err := s.PutAs(image.Descriptor{Digest: desc.Digest, Size: 3}, []byte("abc")); err == nil {
		t.Error("other content was put over a blob")
	}
}

func TestIngestLongerThanSaid(t *testing.T) {
	root := dir(t)
	s := openAt(t, root)
	desc := descriptor(noise(100, 1))
	os.WriteFile(filepath.Join(root, "ingest", "sha256-"+desc.Digest.Encoded()), noise(101, 3), 0o600)
	w, err := s.Writer(context.Background(), desc)
	if err != nil || w.Offset() != 0 {
		t.Fatalf("offset %d, %v", w.Offset(), err)
	}
	w.Close()
}

func TestTwoWritersOfOneBlob(t *testing.T) {
	s := openAt(t, dir(t))
	raw := noise(100000, 1)
	desc := descriptor(raw)
	wrote := 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			w, err := s.Writer(context.Background(), desc)
			if errors.Is(err, ErrExists) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Close()
			w.Write(raw)
			if err := w.Commit(); err != nil {
				t.Error(err)
			}
			mu.Lock()
			wrote++
			mu.Unlock()
		})
	}
	wg.Wait()
	if wrote != 1 {
		t.Errorf("written %d times", wrote)
	}
	other := descriptor([]byte("x"))
	w, _ := s.Writer(context.Background(), other)
	defer w.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Writer(ctx, other); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting writer: %v", err)
	}
}

func TestUpload(t *testing.T) {
	s := openAt(t, dir(t))
	u, err := s.NewUpload()
	if err != nil {
		t.Fatal(err)
	}
	u.Write([]byte("hello "))
	u.Close()
	if u, err = s.OpenUpload(u.ID()); err != nil || u.Offset() != 6 {
		t.Fatal(err)
	}
	u.Write([]byte("world"))
	d, err := u.Commit(image.FromBytes([]byte("hello world")))
	if err != nil || d.Size != 11 {
		t.Fatal(err)
	}
	if b, err := s.Read(d.Digest, 100); err != nil || string(b) != "hello world" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := s.OpenUpload(u.ID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("after commit: %v", err)
	}
	for _, id := range []string{"", "../meta.db", strings.Repeat("0", 32), strings.Repeat("/", 32)} {
		if _, err := s.OpenUpload(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	u, _ = s.NewUpload()
	u.Write([]byte("lie"))
	if _, err := u.Commit(d.Digest); !errors.Is(err, ErrMismatch) {
		t.Errorf("lie: %v", err)
	}
}

func TestNames(t *testing.T) {
	root := dir(t)
	s := openAt(t, root)
	d, _ := putImage(t, s, 1)
	if err := s.SetName("a", d); err != nil {
		t.Fatal(err)
	}
	if err := s.SetName("b", descriptor([]byte("absent"))); !errors.Is(err, ErrNotFound) {
		t.Errorf("name of nothing: %v", err)
	}
	if _, err := Open(root); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	s.Close()
	s = openAt(t, root)
	if got, err := s.Resolve("a"); err != nil || got.Digest != d.Digest || got.MediaType != d.MediaType {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := s.Resolve("b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Resolve(""); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if err := s.RemoveName("a"); err != nil {
		t.Error(err)
	}
	if err := s.RemoveName("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestGC(t *testing.T) {
	root := dir(t)
	s := openAt(t, root)
	ctx := context.Background()
	named, nd := putImage(t, s, 1)
	_, leased := putImage(t, s, 2)
	_, pinned := putImage(t, s, 3)
	_, loose := putImage(t, s, 4)
	x := &image.Index{Manifests: []image.Descriptor{named, descriptor([]byte("never pulled"))}}
	raw, _ := x.Encode()
	idx, err := s.Put(image.MediaTypeIndex, raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetName("a", idx); err != nil {
		t.Fatal(err)
	}
	// A lease on the config keeps what a container needs: it and its layers.
	if err := s.AddLease("c1", leased[1]); err != nil {
		t.Fatal(err)
	}
	pin := s.Pin("test")
	pin.Add(pinned[2])
	freed, err := s.GC(ctx)
	if err != nil || freed.Blobs != len(loose)+1 { // and the leased image's manifest
		t.Errorf("%+v, %v", freed, err)
	}
	has := func(all ...image.Digest) (n int) {
		for _, d := range all {
			if _, err := s.Stat(d); err == nil {
				n++
			}
		}
		return n
	}
	if has(nd...) != 3 || has(pinned...) != 3 || has(leased...) != 2 || has(loose...) != 0 || has(idx.Digest) != 1 {
		t.Errorf("kept %d %d %d %d", has(nd...), has(pinned...), has(leased...), has(loose...))
	}
	pin.Release()
	s.Close() // the lease is on disk
	s = openAt(t, root)
	if _, err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if has(nd...) != 3 || has(pinned...) != 0 || has(leased...) != 2 {
		t.Errorf("kept %d %d %d", has(nd...), has(pinned...), has(leased...))
	}
	s.RemoveLease("c1")
	s.RemoveName("a")
	if freed, err = s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if all, _ := s.Blobs(); len(all) != 0 {
		t.Errorf("left: %v", all)
	}
	s.db.View(func(tx *bolt.Tx) error {
		if n := tx.Bucket(bucketSynced).Stats().KeyN; n != 0 {
			t.Errorf("%d entries of the synced list left", n)
		}
		return nil
	})
}

func TestGCDropsOldParts(t *testing.T) {
	root := dir(t)
	s := openAt(t, root)
	for name, age := range map[string]time.Duration{"old": 25 * time.Hour, "young": time.Hour} {
		p := filepath.Join(root, "ingest", name)
		os.WriteFile(p, []byte("x"), 0o600)
		os.Chtimes(p, time.Time{}, time.Now().Add(-age))
	}
	if _, err := s.GC(context.Background()); err != nil {
		t.Fatal(err)
	}
	list, _ := os.ReadDir(filepath.Join(root, "ingest"))
	if len(list) != 1 || list[0].Name() != "young" {
		t.Errorf("left: %v", list)
	}
}

// TestImage: an image for another machine can be read where it is all there is
// (moby#50851).
func TestImage(t *testing.T) {
	s := openAt(t, dir(t))
	m, parts := putImage(t, s, 1)
	other := image.Platform{OS: "linux", Architecture: "s390x"}
	host := image.Host()
	m.Platform = &other
	absent := descriptor([]byte("absent"))
	absent.MediaType, absent.Platform = image.MediaTypeManifest, &host
	x := &image.Index{Manifests: []image.Descriptor{absent, m}}
	raw, _ := x.Encode()
	idx, _ := s.Put(image.MediaTypeIndex, raw)

	img, err := s.Image(idx, image.Platform{})
	if err != nil || img.ID != parts[1] {
		t.Errorf("%v", err)
	}
	if _, err := s.Image(idx, host); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Image(idx, image.Platform{OS: "linux", Architecture: "ppc64le"}); !errors.Is(err, image.ErrNoPlatform) {
		t.Errorf("got %v", err)
	}
	if miss, err := s.Missing(idx, host); err != nil || len(miss) != 1 || miss[0].Digest != absent.Digest {
		t.Errorf("missing %v, %v", miss, err)
	}
	s.Remove(parts[0])
	if miss, err := s.Missing(idx, other); err != nil || len(miss) != 1 || miss[0].Digest != parts[0] {
		t.Errorf("missing %v, %v", miss, err)
	}
}
