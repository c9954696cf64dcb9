package push

import (
	"context"
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
