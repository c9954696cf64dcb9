package snapshot

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/layer"
)

// TestLayerBytes: a layer's bytes, plain and compressed, are those that earlier
// releases wrote. Whoever changes them changes the digests of everything that
// anybody builds again.
func TestLayerBytes(t *testing.T) {
	dir := t.TempDir()
	if os.Getuid() != 0 {
		t.Skip("files have the owner who makes them")
	}
	files := map[string]string{"d/empty": "", "d/text": strings.Repeat("the same line\n", 20_000), "b": "b", strings.Repeat("long", 40): "x"}
	noise := make([]byte, 1<<20)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	files["d/noise"] = string(noise)
	at := time.Unix(1_700_000_000, 123_000_000)
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{os.Symlink("text", filepath.Join(dir, "d/link")), os.Link(filepath.Join(dir, "b"), filepath.Join(dir, "c"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	when := []unix.Timespec{unix.NsecToTimespec(at.UnixNano()), unix.NsecToTimespec(at.UnixNano())}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "d/link"), when, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "d/empty", "d/text", "d/noise", strings.Repeat("long", 40), "d", "."} {
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	root, err := filetree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, c := range []struct {
		kind            compression.Type
		mediaType, want string
	}{
		{compression.Uncompressed, ocispec.MediaTypeImageLayer, "sha256:11f7036a09acebc82807a9799699636bad64fbfa7c45fc52024f54f50adc66ea"},
		{compression.Gzip, ocispec.MediaTypeImageLayerGzip, "sha256:4212033b10ea3e7bdfb7e729359836a8ff9beb7bd0fa29ed9af12941fb0d2002"},
		{compression.Zstd, ocispec.MediaTypeImageLayerZstd, "sha256:0ea53a5935c9a3f26c06e6f81f490aeef1c2b421b70a86bf9bc8ce6abeacd89b"},
	} {
		var out bytes.Buffer
		o := diff.Config{MediaType: c.mediaType}
		if c.kind != compression.Uncompressed {
			compressor, _ := c.kind.Compress(t.Context(), compression.New(c.kind))
			o.Compressor = func(w io.Writer, mt string) (io.WriteCloser, error) { return compressor(w, mt) }
		}
		if err := compressed(t.Context(), &out, o, func(w io.Writer) error { return layer.Diff(t.Context(), w, root) }); err != nil {
			t.Fatal(err)
		}
		if got := digest.FromBytes(out.Bytes()).String(); got != c.want {
			t.Errorf("%s: %s, not %s", c.kind, got, c.want)
		}
		// By whatever pieces it is written in.
		var again bytes.Buffer
		if err := compressed(t.Context(), &again, o, func(w io.Writer) error { return layer.Diff(t.Context(), pieces{w}, root) }); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), out.Bytes()) {
			t.Errorf("%s: other bytes when it is written in other pieces", c.kind)
		}
	}
}

// pieces is a writer that passes on a little at a time.
type pieces struct{ w io.Writer }

func (p pieces) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		var m int
		m, err = p.w.Write(b[:min(len(b), 777)])
		n, b = n+m, b[m:]
	}
	return n, err
}
