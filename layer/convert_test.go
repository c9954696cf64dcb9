package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"cale/image"
)

// disk is how many bytes of the disk a file takes.
func disk(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestImageReadAgain: layers of which there is no memory to hold the trees while
// they arrive become images all the same.
func TestImageReadAgain(t *testing.T) {
	l := imageStore(t)
	l.arriving = newTreeRoom(20 * fileMemory)
	var all sync.WaitGroup
	for i := range 4 {
		entries := []e{{name: "d/", mode: 0o751}}
		for k := range 40 {
			entries = append(entries, e{name: fmt.Sprintf("d/%d", k), data: strings.Repeat("x", i*k)})
		}
		entries = append(entries, e{name: "again", kind: tar.TypeLink, link: "d/7"}, e{name: "d/.wh.x"}, e{name: ".wh.gone"})
		raw := archive(t, entries...)
		all.Go(func() {
			if !alike(t, l, raw) {
				t.Error("not an image")
			}
		})
	}
	all.Wait()
	if n := l.arriving.left.Load(); n != 20*fileMemory {
		t.Errorf("%d bytes are free at the end", n)
	}
}

// TestImageTooManyFiles: a layer of so many files that there is no memory for them
// at all becomes a directory.
func TestImageTooManyFiles(t *testing.T) {
	l := imageStore(t)
	link := strings.Repeat("../", 1300)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for range againMemory/len(link) + 1 { // a directory that leads somewhere is one all the same, and quickly made
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "d/", Linkname: link, Format: tar.FormatPAX})
	}
	w.Close()
	if alike(t, l, b.Bytes()) {
		t.Error("an image")
	}
	if n := l.arriving.left.Load(); n != arrivingMemory {
		t.Errorf("%d bytes are free at the end", n)
	}
}

// TestImageGaps: zeros, in files and behind the archive's end, take no room.
func TestImageGaps(t *testing.T) {
	l := imageStore(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range map[string]string{"zeros": strings.Repeat("\x00", 16<<20), "text": "x" + strings.Repeat("\x00", 1<<20) + "y"} {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
		io.WriteString(w, data)
	}
	w.Close()
	b.Write(make([]byte, 16<<20))
	if !alike(t, l, b.Bytes()) {
		t.Fatal("not an image")
	}
	if n := disk(t, filepath.Join(l.path(image.FromBytes(b.Bytes())), imageFile)); n > 2<<20 {
		t.Errorf("it takes %d bytes", n)
	}
	unsuited := append(archive(t, e{name: "a/b", data: "x"}), make([]byte, 1<<20)...)
	if alike(t, l, unsuited) {
		t.Error("what implies a parent is an image")
	}
}

// TestConsumed: an archive that is unpacked from a file gives way to what comes of
// it, so that a layer is not on the disk twice.
func TestConsumed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	raw := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096); err != nil {
		t.Skip(err)
	}
	f.WriteAt(raw[:4096], 0)
	f.Sync()
	have, err := io.ReadAll(&consumed{f: f, at: 8, end: int64(len(raw)) - 8})
	if err != nil || !bytes.Equal(have, raw[8:len(raw)-8]) {
		t.Errorf("read %d bytes, %v", len(have), err)
	}
	if n := disk(t, path); n > 2*consumeStep {
		t.Errorf("%d bytes are left", n)
	}
}

// TestConvertAgainCancelled: who waits for its turn waits no longer than it is
// wanted.
func TestConvertAgainCancelled(t *testing.T) {
	l := imageStore(t)
	l.arriving = newTreeRoom(0)
	l.again <- struct{}{}
	ctx, cancel := context.WithCancel(context.Background())
	raw := archive(t, e{name: "f", data: "x"})
	done := make(chan error)
	go func() {
		_, err := l.Unpack(ctx, bytes.NewReader(raw), "", image.FromBytes(raw))
		done <- err
	}()
	cancel()
	if err := <-done; err == nil {
		t.Error("unpacked")
	}
	if n := left(t, l); len(n) > 0 {
		t.Errorf("left behind: %v", n)
	}
}
