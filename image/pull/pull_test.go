package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
	"cale/test/images"
)

// fake is a registry with images in memory; hook may answer instead of it.
type fake struct {
	mu        sync.Mutex
	manifests map[string]images.Blob
	blobs     map[string][]byte
	served    map[string]int
	hook      func(w http.ResponseWriter, r *http.Request) bool
}

func (f *fake) add(tag string, img *images.Image) {
	f.manifests[tag] = img.Manifest
	f.manifests[img.Manifest.Digest()] = img.Manifest
	for _, b := range append(img.Layers, img.Config) {
		f.blobs[b.Digest()] = b.Data
	}
}

func (f *fake) put(tag string, m images.Blob) {
	f.manifests[tag] = m
	f.manifests[m.Digest()] = m
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	f.mu.Lock()
	f.served[at]++
	hook := f.hook
	f.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	if m, ok := f.manifests[at]; ok && strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", m.MediaType)
		w.Header().Set("Docker-Content-Digest", m.Digest())
		w.Header().Set("Content-Length", strconv.Itoa(len(m.Data)))
		if r.Method == http.MethodGet {
			w.Write(m.Data)
		}
		return
	}
	if b, ok := f.blobs[at]; ok {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
		return
	}
	http.NotFound(w, r)
}

type setup struct {
	t   testing.TB
	reg *fake
	ref image.Reference
	Options
	mu     sync.Mutex
	events []Event
}

func newSetup(t testing.TB) *setup {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("unpacking layers needs root")
	}
	dir, err := os.MkdirTemp("/dev/shm", "cale-pull-")
	if err != nil {
		dir = t.TempDir()
	}
	st, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close(); os.RemoveAll(dir) })
	f := &fake{manifests: map[string]images.Blob{}, blobs: map[string][]byte{}, served: map[string]int{}}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	s := &setup{t: t, reg: f, ref: image.Reference{Domain: srv.Listener.Addr().String(), Path: "test/image", Tag: "1"}}
	s.Options = Options{Store: st, Client: client.New(client.Options{}), Ref: s.ref, Progress: func(e Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}}
	return s
}

func (s *setup) pull() (image.Descriptor, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return Pull(ctx, s.Options)
}

// absent checks that the name is not there.
func (s *setup) absent() {
	s.t.Helper()
	if _, err := s.Store.Resolve(s.ref.String()); !errors.Is(err, store.ErrNotFound) {
		s.t.Errorf("the name is there: %v", err)
	}
}

// whole checks that the image is there to its last file.
func (s *setup) whole(layers int) {
	s.t.Helper()
	d, err := s.Store.Resolve(s.ref.String())
	if err != nil {
		s.t.Fatal(err)
	}
	missing, err := s.Store.Missing(d, image.Host())
	if err != nil || len(missing) != 0 {
		s.t.Fatalf("missing %v, %v", missing, err)
	}
	img, err := s.Store.Image(d, image.Host())
	if err != nil {
		s.t.Fatal(err)
	}
	dirs, err := s.Store.Layers.Lower(img.Config.DiffIDs)
	if err != nil || len(dirs) != layers {
		s.t.Fatalf("layers %q, %v", dirs, err)
	}
	for i, dir := range dirs {
		raw, err := os.ReadFile(filepath.Join(dir, "file"))
		if want := fmt.Sprint(layers - 1 - i); err != nil || !strings.HasPrefix(string(raw), want) {
			s.t.Errorf("layer %s holds %.10q, %v", want, raw, err)
		}
	}
}

// testImage has n layers, each with one file of about size bytes that does
// not compress.
func testImage(t *testing.T, n, size int, compression string) *images.Image {
	t.Helper()
	var layers [][]images.File
	seed := uint64(size)
	for i := range n {
		data := []byte(fmt.Sprint(i))
		for range size / 8 {
			seed = seed*6364136223846793005 + 1442695040888963407
			data = append(data, byte(seed>>33), byte(seed>>41), byte(seed>>49), byte(seed>>57), byte(seed>>35), byte(seed>>43), byte(seed>>51), byte(seed>>59))
		}
		layers = append(layers, []images.File{{Name: "file", Data: data}, {Name: "dir/"}})
	}
	img, err := images.New(images.Spec{Layers: layers, Compression: compression})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestPull(t *testing.T) {
	for _, c := range []string{"gzip", "zstd", "none"} {
		t.Run(c, func(t *testing.T) {
			s := newSetup(t)
			img := testImage(t, 9, 300_000, c)
			s.reg.add("1", img)
			d, err := s.pull()
			if err != nil {
				t.Fatal(err)
			}
			if d.Digest.String() != img.Manifest.Digest() {
				t.Errorf("got %v", d)
			}
			s.whole(9)
			last := map[string]string{}
			for _, e := range s.events {
				last[e.ID] = e.Status
			}
			if len(last) != 9 {
				t.Errorf("events of %d layers", len(last))
			}
			for id, status := range last {
				if status != "Pull complete" {
					t.Errorf("layer %s ended with %q", id, status)
				}
			}
			// Again: nothing is fetched.
			s.events = nil
			if _, err := s.pull(); err != nil {
				t.Fatal(err)
			}
			for _, l := range img.Layers {
				if n := s.reg.served[l.Digest()]; n != 1 {
					t.Errorf("layer served %d times", n)
				}
			}
			for _, e := range s.events {
				if e.Status != "Already exists" {
					t.Errorf("event %+v", e)
				}
			}
		})
	}
}

func TestPullSharedLayerAndEmptyImage(t *testing.T) {
	s := newSetup(t)
	layer := []images.File{{Name: "file", Data: []byte("0")}}
	img, err := images.New(images.Spec{Layers: [][]images.File{layer, layer}})
	if err != nil {
		t.Fatal(err)
	}
	s.reg.add("1", img)
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	img, err = images.New(images.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	s.reg.add("1", img)
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(0)
}

func TestPullPlatform(t *testing.T) {
	s := newSetup(t)
	mine := testImage(t, 1, 100, "gzip")
	other, err := images.New(images.Spec{Platform: images.Platform{OS: "linux", Architecture: "riscv64"}, Layers: [][]images.File{{{Name: "file", Data: []byte("0x")}}}})
	if err != nil {
		t.Fatal(err)
	}
	ix, err := images.Index(other, mine)
	if err != nil {
		t.Fatal(err)
	}
	s.reg.add("", mine)
	s.reg.add("", other)
	s.reg.put("1", ix)
	d, err := s.pull()
	if err != nil {
		t.Fatal(err)
	}
	if d.Digest.String() != ix.Digest() || s.reg.served[other.Layers[0].Digest()] != 0 {
		t.Errorf("got %v; the other platform's layer was served %d times", d, s.reg.served[other.Layers[0].Digest()])
	}
	s.whole(1)
	// Another platform of the same index.
	s.Platform = image.Platform{OS: "linux", Architecture: "riscv64"}
	if _, err := s.pull(); err != nil || s.reg.served[other.Layers[0].Digest()] != 1 {
		t.Error(err)
	}
	s.Platform = image.Platform{OS: "linux", Architecture: "s390x"}
	if _, err := s.pull(); err == nil || err.Error() != "no matching manifest for linux/s390x in the manifest list entries" || !errors.Is(err, image.ErrNoPlatform) {
		t.Error(err)
	}
	// An image without an index is taken as it is, unless a platform is named.
	s.reg.put("1", other.Manifest)
	if _, err := s.pull(); err == nil || !strings.Contains(err.Error(), "does not match the specified platform") {
		t.Error(err)
	}
	s.Platform = image.Platform{}
	if _, err := s.pull(); err != nil {
		t.Error(err)
	}
	// By digest: the registry is asked whether it has it, since no name here leads to it any more, and then not again.
	s.Ref = s.ref.WithDigest(image.FromBytes(mine.Manifest.Data))
	for range 2 {
		if d, err = s.pull(); err != nil || d.Digest != s.Ref.Digest {
			t.Fatal(d, err)
		}
	}
	if n := s.reg.served[mine.Manifest.Digest()]; n != 2 {
		t.Errorf("the manifest was asked for %d times", n)
	}
	if _, err := s.Store.Resolve(s.Ref.String()); err != nil {
		t.Error(err)
	}
}

func TestStream(t *testing.T) {
	s := newStream(strings.NewReader("before "), 1<<40)
	want := bytes.Repeat([]byte("0123456789"), 300_000)
	go func() {
		for i := 0; i < len(want); i += 70_000 {
			s.Write(want[i:min(len(want), i+70_000)])
		}
		s.end(io.EOF)
	}()
	got, err := io.ReadAll(s)
	if err != nil || string(got) != "before "+string(want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	s = newStream(strings.NewReader(""), 0)
	s.leave()
	if _, err := s.Write(make([]byte, 2*bufferSize)); !errors.Is(err, errGone) {
		t.Error(err)
	}
}

// TestPullManyZstd: of layers that take much memory to unpack only a few are on
// their way at once, and all of them come.
func TestPullManyZstd(t *testing.T) {
	s := newSetup(t)
	img := testImage(t, 8, 200_000, "zstd")
	s.reg.add("1", img)
	large := map[string]bool{}
	for _, l := range img.Layers {
		large[l.Digest()] = true
	}
	var mu sync.Mutex
	begun, done := 0, func() (n int) {
		for _, l := range img.Layers {
			if d, err := image.ParseDigest(l.Digest()); err == nil {
				if _, err := s.Store.Stat(d); err == nil {
					n++
				}
			}
		}
		return n
	}
	s.reg.hook = func(_ http.ResponseWriter, r *http.Request) bool {
		if large[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]] {
			mu.Lock()
			begun++
			if n := begun - done(); n > maxZstd {
				t.Errorf("%d layers are on their way", n)
			}
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
		}
		return false
	}
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(8)
}
