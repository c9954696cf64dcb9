package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"cale/image"
)

// TestNothingLeaks: neither descriptors nor goroutines stay, however Unpack
// ends.
func TestNothingLeaks(t *testing.T) {
	l := openStore(t)
	var many []e
	for _, d := range "abcdefghijklmnopqrstuvwxyz" { // more directories than are kept open
		many = append(many, e{name: "x/" + string(d) + "/f", data: "1"})
	}
	good := archive(t, append(many, e{name: "x/a", kind: tar.TypeSymlink, link: "b"})...)
	bad := archive(t, append(many, e{name: "h", kind: tar.TypeLink, link: "none"})...)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	fds, routines := count(), runtime.NumGoroutine()
	for range 5 {
		for _, c := range []struct {
			ctx  context.Context
			blob []byte
			id   image.Digest
		}{
			{context.Background(), gz(t, good), image.FromBytes(good)},
			{context.Background(), gz(t, good)[:100], image.FromBytes(bad)},
			{context.Background(), gz(t, bad), image.FromBytes(bad)},
			{context.Background(), []byte("no tar"), image.FromBytes(bad)},
			{ctx, gz(t, bad), image.FromBytes(bad)},
		} {
			l.Unpack(c.ctx, bytes.NewReader(c.blob), "", c.id)
		}
		if err := l.Remove(image.FromBytes(good)); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if count() <= fds && runtime.NumGoroutine() <= routines {
			return
		}
	}
	t.Errorf("%d descriptors became %d, %d goroutines %d", fds, count(), routines, runtime.NumGoroutine())
}
