package push

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"cale/image"
	"cale/image/pull"
	"cale/image/store"
	"cale/registry/client"
	"cale/registry/server"
	"cale/test/images"
)

func open(t *testing.T) *store.Store {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cale-push-")
	if err != nil {
		dir = t.TempDir()
	}
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); os.RemoveAll(dir) })
	return s
}

func registry(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(server.New(open(t), server.Options{}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// TestPushDropped: an image whose compressed layers are not kept is pushed as it
// came, to the bit; if its origin does not give them, the push says so.
func TestPushDropped(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("unpacking layers needs root")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	img, err := images.New(images.Spec{Layers: [][]images.File{{{Name: "a", Data: []byte("a")}}, {{Name: "b", Data: []byte("b")}}}})
	if err != nil {
		t.Fatal(err)
	}
	from := httptest.NewServer(server.New(open(t), server.Options{}))
	defer from.Close()
	if err := img.Push(ctx, from.Listener.Addr().String(), "a:1"); err != nil {
		t.Fatal(err)
	}
	st, c := open(t), client.New(client.Options{})
	src := image.Reference{Domain: from.Listener.Addr().String(), Path: "a", Tag: "1"}
	if _, err := pull.Pull(ctx, pull.Options{Store: st, Client: c, Ref: src, Drop: true}); err != nil {
		t.Fatal(err)
	}
	// Our own registry shows the image whole, and gives what it does not keep.
	own := httptest.NewUnstartedServer(nil)
	here := image.Reference{Domain: own.Listener.Addr().String(), Path: "a", Tag: "1"}
	own.Config.Handler = server.New(st, server.Options{Domain: here.Domain, Restore: func(ctx context.Context, d image.Digest, own func(string) bool) (io.ReadCloser, func(), error) {
		pass, err := pull.Lend(ctx, st, c, d, own)
		return pass, func() {}, err
	}})
	own.Start()
	defer own.Close()
	if target, err := st.Resolve(src.String()); err != nil || st.SetName(here.String(), target) != nil {
		t.Fatal(err)
	}
	other := open(t)
	if _, err := pull.Pull(ctx, pull.Options{Store: other, Client: c, Ref: here}); err != nil {
		t.Fatal(err)
	}
	if _, err := st.GC(ctx); err != nil {
		t.Fatal(err)
	}
	// Within one registry nothing is sent at all.
	if _, err := Push(ctx, Options{Store: st, Client: c, Ref: image.Reference{Domain: src.Domain, Path: "c", Tag: "1"}, Name: src.String()}); err != nil {
		t.Fatal(err)
	}
	for _, l := range img.Layers {
		d, _ := image.ParseDigest(l.Digest())
		if _, err := st.Stat(d); err == nil {
			t.Error("a layer was fetched that could be mounted")
		}
	}
	to := image.Reference{Domain: registry(t), Path: "b", Tag: "1"}
	if _, err := Push(ctx, Options{Store: st, Client: c, Ref: to, Name: src.String()}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Resolve(ctx, to); err != nil || got.Digest.String() != img.Manifest.Digest() {
		t.Errorf("the registry has %v, %v", got, err)
	}
	if _, err := st.GC(ctx); err != nil {
		t.Fatal(err)
	}
	// Where it came from is gone: where it was pushed has it too, until that is gone as well.
	from.Close()
	to.Domain = registry(t)
	if _, err := Push(ctx, Options{Store: st, Client: c, Ref: to, Name: src.String()}); err != nil {
		t.Error(err)
	}
	for _, l := range img.Layers {
		d, _ := image.ParseDigest(l.Digest())
		o, err := st.Origin(d)
		if err != nil || len(o.From) < 3 || o.From[0].Domain != to.Domain {
			t.Errorf("it comes from %v, %v", o.From, err)
		}
		o.From = []image.Reference{src}
		if err := errors.Join(st.Keep(d), st.SetOrigin(o)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := st.GC(ctx); err != nil {
		t.Fatal(err)
	}
	to.Domain = registry(t)
	_, err = Push(ctx, Options{Store: st, Client: c, Ref: to, Name: src.String()})
	if err == nil || !strings.Contains(err.Error(), "kept unpacked only") {
		t.Errorf("%v", err)
	}
}

// An index that was pulled for one platform goes on as that platform's image;
// one that is here whole goes on whole; a platform can be chosen.
func TestPushIndex(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("unpacking layers needs root")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	file := func(s string) [][]images.File { return [][]images.File{{{Name: "file", Data: []byte(s)}}} }
	mine, err := images.New(images.Spec{Layers: file("mine")})
	if err != nil {
		t.Fatal(err)
	}
	riscv := images.Platform{OS: "linux", Architecture: "riscv64"}
	other, err := images.New(images.Spec{Platform: riscv, Layers: file("other")})
	if err != nil {
		t.Fatal(err)
	}
	ix, err := images.Index(other, mine)
	if err != nil {
		t.Fatal(err)
	}
	from, to := registry(t), registry(t)
	if err := images.PushIndex(ctx, from, "a:1", other, mine); err != nil {
		t.Fatal(err)
	}
	st, c := open(t), client.New(client.Options{})
	src := image.Reference{Domain: from, Path: "a", Tag: "1"}
	dst := image.Reference{Domain: to, Path: "b", Tag: "1"}
	push := func(p image.Platform, want string) {
		t.Helper()
		d, err := Push(ctx, Options{Store: st, Client: c, Ref: dst, Name: src.String(), Platform: p})
		if err != nil || d.Digest.String() != want {
			t.Fatalf("pushed %v, %v, want %s", d, err, want)
		}
		if got, err := c.Resolve(ctx, dst); err != nil || got.Digest != d.Digest {
			t.Fatalf("the registry has %v, %v", got, err)
		}
	}
	pullFor := func(p image.Platform) {
		t.Helper()
		if _, err := pull.Pull(ctx, pull.Options{Store: st, Client: c, Ref: src, Platform: p}); err != nil {
			t.Fatal(err)
		}
	}
	pullFor(image.Platform{})
	push(image.Platform{}, mine.Manifest.Digest())
	theirs := image.Platform{OS: "linux", Architecture: "riscv64"}
	if _, err := Push(ctx, Options{Store: st, Client: c, Ref: dst, Name: src.String(), Platform: theirs}); err == nil {
		t.Error("a platform that is not here was pushed")
	}
	pullFor(theirs)
	push(theirs, other.Manifest.Digest())
	push(image.Platform{}, ix.Digest())
	if _, err := Push(ctx, Options{Store: st, Client: c, Ref: dst, Name: src.String(), Platform: image.Platform{OS: "plan9", Architecture: "386"}}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}
