package pull

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cale/image"
	"cale/image/store"
	"cale/registry/server"
)

// own serves the setup's store as a registry, under other domains too.
func (s *setup) own(o server.Options) (addr string) {
	srv := httptest.NewUnstartedServer(nil)
	o.Domain = srv.Listener.Addr().String()
	o.Restore = func(ctx context.Context, d image.Digest, own func(string) bool) (io.ReadCloser, func(), error) {
		pass, err := Lend(ctx, s.Store, s.Client, d, own)
		return pass, func() {}, err
	}
	srv.Config.Handler = server.New(s.Store, o)
	srv.Start()
	s.t.Cleanup(srv.Close)
	return o.Domain
}

// TestPullFromOwnMirror: a pull by way of a mirror that is served from the same
// store waits for no blob that the mirror waits for it to bring; and what is not
// kept comes back by way of it.
func TestPullFromOwnMirror(t *testing.T) {
	for what, drop := range map[string]bool{"keep": false, "drop": true} {
		t.Run(what, func(t *testing.T) {
			s := newSetup(t)
			img := testImage(t, 5, 200_000, "gzip")
			s.reg.add("1", img)
			upstream := s.ref.Domain
			s.ref.Domain = s.own(server.Options{Upstream: s.Client, UpstreamDomain: upstream})
			s.Ref, s.Drop, s.large, s.minPiece = s.ref, drop, 64<<10, store.Block
			if _, err := s.pull(); err != nil {
				t.Fatal(err)
			}
			s.whole(5)
			if n := s.kept(); (n == 0) != drop {
				t.Errorf("%d blobs are kept", n)
			}
			for _, l := range img.Layers {
				// The first time a range was asked for, which a mirror does not give.
				if n := s.reg.served[l.Digest()]; n > 2 {
					t.Errorf("a layer was fetched %d times", n)
				}
				d, _ := image.ParseDigest(l.Digest())
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				if err := Restore(ctx, s.Store, s.Client, d); err != nil {
					t.Error(err)
				}
				cancel()
				if raw, err := s.Store.Read(d, 1<<30); err != nil || string(raw) != string(l.Data) {
					t.Errorf("it came back as something else, %v", err)
				}
			}
		})
	}
}

// TestPullOwnOfDropped: an image of which the blobs were not kept is pulled from
// the store's own registry, to be kept now.
func TestPullOwnOfDropped(t *testing.T) {
	s := newSetup(t)
	img := testImage(t, 4, 200_000, "gzip")
	s.reg.add("1", img)
	s.Drop = true
	target, err := s.pull()
	if err != nil {
		t.Fatal(err)
	}
	s.ref.Domain = s.own(server.Options{})
	if err := s.Store.SetName(s.ref.String(), target); err != nil {
		t.Fatal(err)
	}
	s.Ref, s.Drop = s.ref, false
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	if s.kept() != 4 {
		t.Errorf("%d blobs are kept", s.kept())
	}
}

// TestOriginIsOneself: a registry at whose address another one was, from which
// blobs came that are not kept, says that it does not have them, and asks nobody
// without end.
func TestOriginIsOneself(t *testing.T) {
	s := newSetup(t)
	img := testImage(t, 1, 1000, "gzip")
	s.reg.add("1", img)
	s.Drop = true
	target, err := s.pull()
	if err != nil {
		t.Fatal(err)
	}
	addr := s.own(server.Options{})
	s.ref.Domain = addr
	if err := s.Store.SetName(s.ref.String(), target); err != nil {
		t.Fatal(err)
	}
	d, _ := image.ParseDigest(img.Layers[0].Digest())
	o, err := s.Store.Origin(d)
	if err != nil {
		t.Fatal(err)
	}
	o.From = []image.Reference{s.ref}
	if err := errors.Join(s.Store.Keep(d), s.Store.SetOrigin(o)); err != nil {
		t.Fatal(err)
	}
	res, err := http.Get("http://" + addr + "/v2/test/image/blobs/" + d.String())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("it answers %s", res.Status)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := Restore(ctx, s.Store, s.Client, d); err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "kept unpacked only") {
		t.Errorf("%v", err)
	}
}

// TestSecondOrigin: of what was pulled from two registries the second is asked
// when the first is gone; one that only names a layer is not.
func TestSecondOrigin(t *testing.T) {
	s := newSetup(t)
	s.Drop = true
	img := testImage(t, 2, 1000, "gzip")
	first := httptest.NewServer(s.reg)
	s.reg.add("1", img)
	s.Ref.Domain = first.Listener.Addr().String()
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	liar := &fake{manifests: s.reg.manifests, blobs: map[string][]byte{img.Config.Digest(): img.Config.Data}, served: map[string]int{}}
	lying := httptest.NewServer(liar)
	defer lying.Close()
	s.Ref.Domain = lying.Listener.Addr().String()
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.Ref = s.ref
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	first.Close()
	for _, l := range img.Layers {
		d, _ := image.ParseDigest(l.Digest())
		if o, err := s.Store.Origin(d); err != nil || len(o.From) != 2 || o.From[0].Domain != s.ref.Domain {
			t.Errorf("it comes from %v, %v", o.From, err)
		}
		if err := Restore(context.Background(), s.Store, s.Client, d); err != nil {
			t.Error(err)
		}
	}
}
