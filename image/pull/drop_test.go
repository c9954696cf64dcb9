package pull

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"cale/image"
	"cale/image/store"
)

// kept tells which of an image's layer blobs are in the store.
func (s *setup) kept() (n int) {
	s.t.Helper()
	d, err := s.Store.Resolve(s.ref.String())
	if err != nil {
		s.t.Fatal(err)
	}
	img, err := s.Store.Image(d, image.Host())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range img.Manifest.Layers {
		if _, err := s.Store.Stat(l.Digest); err == nil {
			n++
		}
	}
	return n
}

// TestPullDrop: with compressed blobs dropped the image is whole without them,
// a second pull fetches nothing, and each can be had again to the bit until it
// is not needed any more (moby#50103).
func TestPullDrop(t *testing.T) {
	for _, c := range []string{"gzip", "zstd", "none"} {
		t.Run(c, func(t *testing.T) {
			s := newSetup(t)
			s.Drop = true
			img := testImage(t, 5, 200_000, c)
			s.reg.add("1", img)
			if _, err := s.pull(); err != nil {
				t.Fatal(err)
			}
			s.whole(5)
			if n := s.kept(); n != 0 {
				t.Errorf("%d blobs were kept", n)
			}
			if problems, _, err := s.Store.Check(context.Background()); err != nil || len(problems) > 0 {
				t.Errorf("%v, %v", problems, err)
			}
			s.reg.served = map[string]int{}
			if _, err := s.pull(); err != nil {
				t.Fatal(err)
			}
			for _, l := range img.Layers {
				if s.reg.served[l.Digest()] > 0 {
					t.Error("a layer that is here was fetched again")
				}
			}
			pin := s.Store.Pin("test")
			for _, l := range img.Layers {
				d, _ := image.ParseDigest(l.Digest())
				pin.Add(d)
				if err := Restore(context.Background(), s.Store, s.Client, d); err != nil {
					t.Fatal(err)
				}
				if raw, err := s.Store.Read(d, 1<<30); err != nil || string(raw) != string(l.Data) {
					t.Errorf("it came back as something else, %v", err)
				}
			}
			if _, err := s.Store.GC(context.Background()); err != nil || s.kept() != 5 {
				t.Errorf("what is used was collected: %d left, %v", s.kept(), err)
			}
			if _, err := s.pull(); err != nil || s.kept() != 5 {
				t.Errorf("what is used was dropped by a pull: %d left, %v", s.kept(), err)
			}
			pin.Release()
			if _, err := s.Store.GC(context.Background()); err != nil || s.kept() != 0 {
				t.Errorf("what is not used any more stays: %d, %v", s.kept(), err)
			}
			s.whole(5)

			// Who changes the setting has all again with the next pull, and keeps it.
			s.Drop = false
			if _, err := s.pull(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Store.GC(context.Background()); err != nil || s.kept() != 5 {
				t.Errorf("%d blobs are kept, %v", s.kept(), err)
			}
		})
	}
}

// TestPullDropRoom: no more bytes are on their way at one time than the largest
// layer has.
func TestPullDropRoom(t *testing.T) {
	s := newSetup(t)
	s.Drop = true
	img := testImage(t, 8, 300_000, "none")
	s.reg.add("1", img)
	sizes, most := map[string]int{}, 0
	for _, l := range img.Layers {
		sizes[l.Digest()] = len(l.Data)
		most = max(most, len(l.Data))
	}
	s.reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		at := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		if sizes[at] == 0 {
			return false
		}
		there := sizes[at]
		for _, l := range img.Layers {
			d, _ := image.ParseDigest(l.Digest())
			if n, err := s.Store.Stat(d); err == nil {
				there += int(n)
			}
		}
		if there > most {
			t.Errorf("%d bytes are here while a layer is fetched: the largest has %d", there, most)
		}
		time.Sleep(5 * time.Millisecond)
		return false
	}
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(8)
}

// TestPullDropTwice: pulls of one image that drop its blobs join.
func TestPullDropTwice(t *testing.T) {
	s := newSetup(t)
	s.Drop = true
	s.Progress = nil
	img := testImage(t, 6, 100_000, "gzip")
	s.reg.add("1", img)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := s.pull(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s.whole(6)
	for _, l := range img.Layers {
		if n := s.reg.served[l.Digest()]; n != 1 {
			t.Errorf("a layer was fetched %d times", n)
		}
	}
	if s.kept() != 0 {
		t.Error("blobs were kept")
	}
}

// TestDropNothingUnseen: a registry that names a layer and does not have it is not
// where it comes from, should it come from elsewhere.
func TestDropNothingUnseen(t *testing.T) {
	s := newSetup(t)
	s.Drop = true
	img := testImage(t, 1, 1000, "gzip")
	s.reg.add("1", img)
	d, _ := image.ParseDigest(img.Layers[0].Digest())
	delete(s.reg.blobs, d.String())
	if _, err := s.pull(); err == nil {
		t.Fatal("a layer that is not there was pulled")
	}
	if o, err := s.Store.Origin(d); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it is said to come from %s, %v", o.From, err)
	}
}

// TestRestoreSaysWhyNot: when a registry has not kept what was dropped here, the
// error tells what and from where.
func TestRestoreSaysWhyNot(t *testing.T) {
	s := newSetup(t)
	s.Drop = true
	img := testImage(t, 1, 1000, "gzip")
	s.reg.add("1", img)
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	d, _ := image.ParseDigest(img.Layers[0].Digest())
	// Who pulled may have had a login that the engine has not.
	s.reg.hook = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	if err := Restore(context.Background(), s.Store, s.Client, d); err == nil || !strings.Contains(err.Error(), "cale login") {
		t.Errorf("%v", err)
	}
	s.reg.hook = nil
	delete(s.reg.blobs, d.String())
	err := Restore(context.Background(), s.Store, s.Client, d)
	if err == nil || !strings.Contains(err.Error(), d.Short()) || !strings.Contains(err.Error(), "kept unpacked only") || !strings.Contains(err.Error(), "test/image") {
		t.Errorf("%v", err)
	}
	if err := Restore(context.Background(), s.Store, s.Client, image.FromBytes([]byte("x"))); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what nobody knows: %v", err)
	}
}

// TestPullDuringPrune: what a pull has brought is not collected before its name
// is there (moby#48063).
func TestPullDuringPrune(t *testing.T) {
	for what, drop := range map[string]bool{"keep": false, "drop": true} {
		t.Run(what, func(t *testing.T) {
			s := newSetup(t)
			s.Drop, s.large, s.minPiece = drop, 64<<10, store.Block
			img := testImage(t, 5, 100_000, "gzip")
			s.reg.add("1", img)
			s.reg.hook = func(http.ResponseWriter, *http.Request) bool {
				if _, err := s.Store.GC(context.Background()); err != nil {
					t.Error(err)
				}
				return false
			}
			if _, err := s.pull(); err != nil {
				t.Fatal(err)
			}
			s.whole(5)
			for _, l := range img.Layers {
				if n, pieces := s.reg.served[l.Digest()], len(l.Data)/store.Block+1; n > pieces {
					t.Errorf("a layer of %d pieces was asked for %d times", pieces, n)
				}
			}
		})
	}
}
