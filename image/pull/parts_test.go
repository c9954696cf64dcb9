package pull

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
	"cale/test/images"
)

// ranges notes the parts of blobs that a registry was asked for.
type ranges struct {
	mu    sync.Mutex
	asked map[string][]store.Range // by digest
}

func (s *setup) watchRanges(then func(w http.ResponseWriter, r *http.Request, from int64) bool) *ranges {
	seen := &ranges{asked: map[string][]store.Range{}}
	s.reg.mu.Lock()
	defer s.reg.mu.Unlock()
	s.reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		from, to, ok := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
		a, _ := strconv.ParseInt(from, 10, 64)
		b, err := strconv.ParseInt(to, 10, 64)
		if !ok || err != nil {
			return false
		}
		at := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		seen.mu.Lock()
		seen.asked[at] = append(seen.asked[at], store.Range{From: a, N: b - a + 1})
		seen.mu.Unlock()
		return then != nil && then(w, r, a)
	}
	return seen
}

func (r *ranges) of(b images.Blob) []store.Range {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[b.Digest()]
}

// small makes parts of what is too small for them otherwise.
func (s *setup) small() *setup {
	s.large, s.minPiece, s.starving = 2<<20, store.Block, 1
	return s
}

// Ranges come side by side while the unpacking waits for the network.
func TestPullParts(t *testing.T) {
	s := newSetup(t).small()
	img := testImage(t, 2, 9<<20, "gzip")
	s.reg.add("1", img)
	last := int64(len(img.Layers[1].Data)-1) / store.Block * store.Block
	together, alone := make(chan struct{}), time.Now().Add(30*time.Second)
	var waiting atomic.Int32
	seen := s.watchRanges(func(w http.ResponseWriter, r *http.Request, from int64) bool {
		if from < last-2*store.Block {
			time.Sleep(5 * time.Millisecond)
			return false
		}
		// Of the last three pieces two must be asked for at one time.
		if waiting.Add(1) == 2 {
			close(together)
		}
		select {
		case <-together:
		case <-time.After(time.Until(alone)):
			t.Error("the last pieces were asked for one after the other")
		}
		return false
	})
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(2)
	for _, l := range img.Layers {
		total := int64(0)
		for _, r := range seen.of(l) {
			total += r.N
		}
		if total != int64(len(l.Data)) {
			t.Errorf("%d bytes of %d were asked for", total, len(l.Data))
		}
	}
	for _, e := range s.events {
		if e.Status == "Downloading" && (e.Current <= 0 || e.Current > e.Total) {
			t.Errorf("%+v", e)
		}
	}
}

// A registry that knows no ranges, or gets them wrong, is asked for the whole.
func TestPullPartsRefused(t *testing.T) {
	img := testImage(t, 1, 5<<20, "gzip")
	for name, hook := range map[string]func(w http.ResponseWriter, r *http.Request, from int64) bool{
		"ignored": func(w http.ResponseWriter, r *http.Request, from int64) bool {
			r.Header.Del("Range")
			return false
		},
		"refused": func(w http.ResponseWriter, r *http.Request, from int64) bool {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return true
		},
		"another range": func(w http.ResponseWriter, r *http.Request, from int64) bool {
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from+1, from+10))
			return false
		},
		"ignored later": func(w http.ResponseWriter, r *http.Request, from int64) bool {
			if from > 2*store.Block {
				r.Header.Del("Range")
			}
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t).small()
			s.reg.add("1", img)
			s.watchRanges(hook)
			if _, err := s.pull(); err != nil {
				t.Fatal(err)
			}
			s.whole(1)
		})
	}
}

// Transfers that break, and registries that ask for patience (containerd#10447).
func TestPullPartsInterrupted(t *testing.T) {
	s := newSetup(t).small()
	img := testImage(t, 1, 8<<20, "gzip")
	s.reg.add("1", img)
	data := img.Layers[0].Data
	var n atomic.Int32
	s.watchRanges(func(w http.ResponseWriter, r *http.Request, from int64) bool {
		_, to, _ := strings.Cut(r.Header.Get("Range"), "-")
		end, _ := strconv.ParseInt(to, 10, 64)
		switch i := n.Add(1); i {
		case 3, 6:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		case 4:
			w.WriteHeader(http.StatusBadGateway)
			return true
		case 2, 5, 7: // cut off at once, or in the middle
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, end, len(data)))
			w.Header().Set("Content-Length", fmt.Sprint(end-from+1))
			w.WriteHeader(http.StatusPartialContent)
			if i == 7 {
				w.Write(data[from : from+(end-from)/2])
			}
			panic(http.ErrAbortHandler)
		}
		return false
	})
	s.reg.served = map[string]int{}
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(1)
	if n.Load() != int32(s.reg.served[img.Layers[0].Digest()]) {
		t.Error("it was fetched as a whole")
	}
}

// What was complete when a pull failed is not asked for again.
func TestPullPartsResume(t *testing.T) {
	s := newSetup(t).small()
	img := testImage(t, 1, 9<<20, "gzip")
	s.reg.add("1", img)
	s.starving = 1 << 20 // one after the other
	s.watchRanges(func(w http.ResponseWriter, r *http.Request, from int64) bool {
		if from < 4*store.Block {
			return false
		}
		http.NotFound(w, r)
		return true
	})
	if _, err := s.pull(); !errors.Is(err, client.ErrNotFound) {
		t.Fatal(err)
	}
	s.absent()
	seen := s.watchRanges(nil)
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(1)
	for _, r := range seen.of(img.Layers[0]) {
		if r.From < 4*store.Block {
			t.Errorf("%+v is fetched again", r)
		}
	}
}

// Wrong bytes in one range are refused, and forgotten.
func TestPullPartsWrongBytes(t *testing.T) {
	s := newSetup(t).small()
	img := testImage(t, 1, 5<<20, "gzip")
	s.reg.add("1", img)
	data := img.Layers[0].Data
	bad := func(w http.ResponseWriter, r *http.Request, from int64) bool {
		if from != 2*store.Block {
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+store.Block-1, len(data)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(make([]byte, store.Block))
		return true
	}
	s.watchRanges(bad)
	if _, err := s.pull(); !errors.Is(err, store.ErrMismatch) {
		t.Error(err)
	}
	s.absent()
	seen := s.watchRanges(nil)
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(1)
	if len(seen.of(img.Layers[0])) < 4 {
		t.Error("wrong bytes were kept")
	}
}

// Parts of an earlier try may be wrong as a whole: the blob is fetched anew.
func TestPullPartsStale(t *testing.T) {
	s := newSetup(t).small()
	img := testImage(t, 1, 5<<20, "gzip")
	s.reg.add("1", img)
	d := image.Descriptor{Digest: image.FromBytes(img.Layers[0].Data), Size: int64(len(img.Layers[0].Data))}
	p, err := s.Store.Parts(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Section(store.Range{From: store.Block, N: store.Block}).Write(make([]byte, store.Block)); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(1)
}

func TestPullPartsCancelled(t *testing.T) {
	s := newSetup(t).small()
	img := testImage(t, 1, 5<<20, "gzip")
	s.reg.add("1", img)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("why")
	s.watchRanges(func(w http.ResponseWriter, r *http.Request, from int64) bool {
		if from < 2*store.Block {
			return false
		}
		cancel(why)
		<-r.Context().Done()
		return true
	})
	if _, err := Pull(ctx, s.Options); !errors.Is(err, why) {
		t.Error(err)
	}
	s.absent()
}
