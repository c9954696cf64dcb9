package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cale/image"
	"cale/image/store"
	"cale/test/images"
)

// A registry that truncates, lies and ignores (containerd#3974).
func TestPullHostile(t *testing.T) {
	img := testImage(t, 2, 3_000_000, "gzip")
	target := img.Layers[1]
	only := func(f func(w http.ResponseWriter, r *http.Request, n int) bool) func(http.ResponseWriter, *http.Request) bool {
		var n atomic.Int32
		return func(w http.ResponseWriter, r *http.Request) bool {
			return strings.HasSuffix(r.URL.Path, target.Digest()) && f(w, r, int(n.Add(1)))
		}
	}
	cut := len(target.Data) * 6 / 10
	truncate := func(w http.ResponseWriter) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(target.Data)))
		w.Write(target.Data[:cut])
		return true
	}
	for _, tt := range []struct {
		name string
		hook func(w http.ResponseWriter, r *http.Request, n int) bool
		want string // error, or empty
	}{
		{"truncated once", func(w http.ResponseWriter, r *http.Request, n int) bool { return n == 1 && truncate(w) }, ""},
		{"truncated, then Range ignored", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n > 1 {
				r.Header.Del("Range")
			}
			return n == 1 && truncate(w)
		}, ""},
		{"truncated always", func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.Header().Set("Content-Length", strconv.Itoa(len(target.Data)))
			if r.Header.Get("Range") == "" {
				w.Write(target.Data[:1000])
			}
			return true
		}, "ended the transfer after 1000 of"},
		{"wrong bytes", func(w http.ResponseWriter, r *http.Request, n int) bool {
			bad := bytes.Clone(target.Data)
			bad[len(bad)/2] ^= 1
			w.Write(bad)
			return true
		}, "does not match its digest"},
		{"all wrong", func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.Write(bytes.Repeat([]byte("x"), len(target.Data)))
			return true
		}, "does not match its digest"},
		{"more bytes", func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.(http.Flusher).Flush()
			w.Write(target.Data)
			io.WriteString(w, "more")
			return true
		}, "more bytes than the manifest says"},
		{"server errors, then good", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n < 3 {
				w.WriteHeader(http.StatusBadGateway)
			}
			return n < 3
		}, ""},
		{"gone", func(w http.ResponseWriter, r *http.Request, n int) bool { http.NotFound(w, r); return true }, "not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSetup(t)
			s.reg.add("1", img)
			s.reg.hook = only(tt.hook)
			_, err := s.pull()
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				s.whole(2)
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v", err)
			}
			s.absent()
			if _, err := s.Store.Stat(image.FromBytes(target.Data)); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("the bad blob is there: %v", err)
			}
			// With a good registry it works then.
			s.reg.mu.Lock()
			s.reg.hook = nil
			s.reg.mu.Unlock()
			if _, err := s.pull(); err != nil {
				t.Fatal(err)
			}
			s.whole(2)
		})
	}
}

// What an earlier try left behind may be bad; the blob is then fetched anew.
func TestPullOverBadPart(t *testing.T) {
	s := newSetup(t)
	img := testImage(t, 1, 1_000_000, "gzip")
	s.reg.add("1", img)
	d := image.Descriptor{Digest: image.FromBytes(img.Layers[0].Data), Size: int64(len(img.Layers[0].Data))}
	w, err := s.Store.Writer(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(bytes.Repeat([]byte("bad"), 50_000))
	w.Close()
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(1)
}

// A cancelled pull leaves no name, and the next goes on where it stood.
func TestPullCancelResume(t *testing.T) {
	s := newSetup(t)
	img := testImage(t, 1, 3_000_000, "gzip")
	s.reg.add("1", img)
	layer := img.Layers[0]
	half := len(layer.Data) / 2
	ctx, cancel := context.WithCancel(context.Background())
	var ranges []string
	s.reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, layer.Digest()) {
			return false
		}
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) > 1 {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(layer.Data)))
		w.Write(layer.Data[:half])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	progress := s.Progress
	s.Progress = func(e Event) {
		progress(e)
		if e.Status == "Downloading" {
			cancel()
		}
	}
	if _, err := Pull(ctx, s.Options); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.absent()
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(1)
	if len(ranges) != 2 || !strings.HasPrefix(ranges[1], "bytes=") {
		t.Errorf("ranges %q", ranges)
	}
}

// Two pulls at once fetch each blob once; when the one that fetches is
// cancelled, the other takes over.
func TestPullJoined(t *testing.T) {
	s := newSetup(t)
	img := testImage(t, 2, 2_000_000, "gzip")
	s.reg.add("1", img)
	began, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, img.Layers[0].Digest()) {
			once.Do(func() { close(began) })
			select {
			case <-gate:
			case <-r.Context().Done():
			}
		}
		return false
	}
	ctx, cancel := context.WithCancel(context.Background())
	first, second, third := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() { _, err := Pull(ctx, s.Options); first <- err }()
	<-began
	go func() { _, err := s.pull(); second <- err }()
	go func() { _, err := s.pull(); third <- err }()
	time.Sleep(50 * time.Millisecond) // likely joined; the result is the same if not
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(gate)
	if err := errors.Join(<-second, <-third); err != nil {
		t.Fatal(err)
	}
	s.whole(2)
	if n := s.reg.served[img.Layers[0].Digest()]; n > 2 {
		t.Errorf("layer served %d times", n)
	}
}

func TestPullNotAnImage(t *testing.T) {
	s := newSetup(t)
	artifact := images.Blob{MediaType: image.MediaTypeManifest, Data: []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"x/y","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`)}
	s.reg.put("1", artifact)
	if _, err := s.pull(); err == nil || !strings.Contains(err.Error(), "is not a container image") {
		t.Error(err)
	}
	s.absent()
	// Two readings of one document (CVE-2021-41190).
	s.reg.put("1", images.Blob{MediaType: image.MediaTypeIndex, Data: artifact.Data})
	if _, err := s.pull(); err == nil {
		t.Error("an index that is a manifest was accepted")
	}
	if _, err := Pull(context.Background(), Options{Store: s.Store, Client: s.Client, Ref: s.ref.WithTag("nope")}); err == nil ||
		!strings.HasPrefix(err.Error(), "manifest for "+s.ref.WithTag("nope").Familiar()+" not found") {
		t.Error(err)
	}
}

// A layer whose tree is not what the config says.
func TestPullWrongDiffID(t *testing.T) {
	s := newSetup(t)
	good := testImage(t, 1, 1000, "gzip")
	other := testImage(t, 1, 2000, "gzip")
	man := bytes.ReplaceAll(good.Manifest.Data, []byte(good.Config.Digest()), []byte(other.Config.Digest()))
	man = bytes.Replace(man, []byte(fmt.Sprintf(`"size":%d`, len(good.Config.Data))), []byte(fmt.Sprintf(`"size":%d`, len(other.Config.Data))), 1)
	s.reg.add("1", good)
	s.reg.add("2", other)
	s.reg.put("1", images.Blob{MediaType: images.TypeManifest, Data: man})
	_, err := s.pull()
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	s.absent()
	t.Log(err)
}
