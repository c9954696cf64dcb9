package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"cale/image"
)

func gz(t testing.TB, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(raw)
	w.Close()
	return b.Bytes()
}

func openStore(t testing.TB) *Store {
	t.Helper()
	l, err := Open(filepath.Join(shm(t), "layers"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// left lists what is in the store's directory.
func left(t testing.TB, l *Store) []string {
	t.Helper()
	names, err := l.names()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestUnpackCompressions(t *testing.T) {
	raw := archive(t, e{name: "a/b", data: strings.Repeat("hello ", 100000)})
	raw = append(raw, make([]byte, 10240)...) // padding counts for the digest
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zs := enc.EncodeAll(raw, nil)
	half := len(raw) / 2
	id := image.FromBytes(raw)
	for name, c := range map[string]struct {
		blob []byte
		mt   string
	}{
		"Plain":             {raw, image.MediaTypeLayer},
		"Gzip":              {gz(t, raw), image.MediaTypeLayerGzip},
		"GzipTwoMembers":    {append(gz(t, raw[:half]), gz(t, raw[half:])...), image.MediaTypeDockerLayerGzip},
		"Zstd":              {zs, image.MediaTypeLayerZstd},
		"ZstdSkippable":     {append([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}, zs...), image.MediaTypeLayerZstd},
		"ZstdTwoFrames":     {append(enc.EncodeAll(raw[:half], nil), enc.EncodeAll(raw[half:], nil)...), image.MediaTypeLayerZstd},
		"ZstdChunked":       {chunked(t, enc, raw), image.MediaTypeLayerZstd},
		"EStargz":           {stargz(t, raw), image.MediaTypeLayerGzip},
		"GzipSaidToBePlain": {gz(t, raw), image.MediaTypeLayer},
		"NobodySaid":        {gz(t, raw), ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := openStore(t)
			r := bytes.NewReader(c.blob)
			n, err := l.Unpack(context.Background(), r, c.mt, id)
			if err != nil || n != 600000 {
				t.Fatalf("%d bytes, %v", n, err)
			}
			if r.Len() != 0 {
				t.Errorf("%d bytes of the blob were not read", r.Len())
			}
			b, err := os.ReadFile(filepath.Join(l.path(id), "fs/a/b"))
			if err != nil || len(b) != 600000 {
				t.Errorf("file of %d bytes, %v", len(b), err)
			}
		})
	}
}

// chunked is what zstd:chunked layers look like: a frame for each piece, then a manifest and a footer that readers of
// zstd skip.
func chunked(t *testing.T, enc *zstd.Encoder, raw []byte) (out []byte) {
	t.Helper()
	for len(raw) > 0 {
		n := min(len(raw), 50_000)
		out = append(out, enc.EncodeAll(raw[:n], nil)...)
		raw = raw[n:]
	}
	for _, b := range [][]byte{enc.EncodeAll([]byte(`{"version":1,"entries":[]}`), nil), make([]byte, 64)} {
		out = append(out, 0x50, 0x2a, 0x4d, 0x18)
		out = append(binary.LittleEndian.AppendUint32(out, uint32(len(b))), b...)
	}
	return out
}

// stargz is what eStargz layers look like: a member for each piece, and an empty one with the footer in its header.
func stargz(t *testing.T, raw []byte) (out []byte) {
	t.Helper()
	for len(raw) > 0 {
		n := min(len(raw), 50_000)
		out = append(out, gz(t, raw[:n])...)
		raw = raw[n:]
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Extra = []byte("SG\x16\x000000000000001234STARGZ")
	w.Close()
	return append(out, b.Bytes()...)
}

func TestUnpackRefuses(t *testing.T) {
	raw := archive(t, e{name: "a/b", data: strings.Repeat("hello ", 100000)})
	id := image.FromBytes(raw)
	z := gz(t, raw)
	other := archive(t, e{name: "evil"})
	bomb := gz(t, make([]byte, 4<<20))
	for name, c := range map[string]struct {
		blob []byte
		mt   string
		want error
	}{
		"OtherContent":    {gz(t, other), image.MediaTypeLayerGzip, ErrDigest},
		"Cut":             {z[:len(z)-20], image.MediaTypeLayerGzip, io.ErrUnexpectedEOF},
		"CutPlain":        {raw[:len(raw)/2], image.MediaTypeLayer, io.ErrUnexpectedEOF},
		"Empty":           {nil, image.MediaTypeLayerGzip, ErrDigest},
		"TrailingGarbage": {append(append([]byte{}, z...), "garbage"...), image.MediaTypeLayerGzip, nil},
		"TrailingTar":     {append(append([]byte{}, raw...), other...), image.MediaTypeLayer, ErrDigest},
		"Bomb":            {bomb, image.MediaTypeLayerGzip, ErrTooLarge},
		"NoLayer":         {raw, "application/json", nil},
		"Xz":              {[]byte{0xfd, '7', 'z', 'X', 'Z', 0, 0}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := openStore(t)
			l.Limits.Bytes = 1 << 20
			_, err := l.Unpack(context.Background(), bytes.NewReader(c.blob), c.mt, id)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if l.Has(id) || len(left(t, l)) != 0 {
				t.Errorf("left: %v", left(t, l))
			}
		})
	}
}

// TestUnpackTwiceAtOnce: the second joins the first.
func TestUnpackTwiceAtOnce(t *testing.T) {
	l := openStore(t)
	raw := archive(t, e{name: "a", data: "x"})
	id := image.FromBytes(raw)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if n, err := l.Unpack(context.Background(), bytes.NewReader(gz(t, raw)), "", id); err != nil || n != 1 {
				t.Error(n, err)
			}
		})
	}
	wg.Wait()
	if n := left(t, l); len(n) != 1 {
		t.Errorf("left: %v", n)
	}
}

// TestUnpackFailsWithItsSource: what ends the download ends Unpack.
func TestUnpackFailsWithItsSource(t *testing.T) {
	l := openStore(t)
	raw := archive(t, e{name: "a", data: strings.Repeat("x", 1<<20)})
	pr, pw := io.Pipe()
	gone := errors.New("connection lost")
	go func() {
		pw.Write(raw[:300000])
		pw.CloseWithError(gone)
	}()
	_, err := l.Unpack(context.Background(), pr, "", image.FromBytes(raw))
	if !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	if n := left(t, l); len(n) != 0 {
		t.Errorf("left: %v", n)
	}
}

func TestLowerAndRemove(t *testing.T) {
	l := openStore(t)
	var ids []image.Digest
	for _, x := range []e{{name: "base"}, {name: ".wh..wh..opq"}, {name: "top"}} {
		raw := archive(t, x)
		ids = append(ids, image.FromBytes(raw))
		if _, err := l.Unpack(context.Background(), bytes.NewReader(raw), "", ids[len(ids)-1]); err != nil {
			t.Fatal(err)
		}
	}
	// The middle layer hides the lowest, after reopening too.
	again, err := Open(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	lower, err := again.Lower(ids)
	if err != nil || len(lower) != 2 || lower[0] != filepath.Join(l.path(ids[2]), "fs") {
		t.Errorf("%v, %v", lower, err)
	}
	if err := again.Remove(ids[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Lower(ids); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if err := again.Remove(ids[1]); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	// A process that died in Unpack, and one that died in Remove.
	os.MkdirAll(filepath.Join(l.dir, "tmp-0123-1/fs/a/b"), 0o700)
	if err := again.Hide(ids[0]); err != nil {
		t.Fatal(err)
	}
	if err := again.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := left(t, again); len(n) != 1 || n[0] != dirName(ids[2]) {
		t.Errorf("left: %v", n)
	}
}

// TestOverlay mounts unpacked layers: whiteouts and opaque directories must
// mean to the kernel what they mean in the image (containerd#13030).
func TestOverlay(t *testing.T) {
	l := openStore(t)
	var ids []image.Digest
	for _, layer := range [][]e{
		{{name: "keep", data: "1"}, {name: "gone", data: "1"}, {name: "d/low"}, {name: "dir/a"}, {name: "dir/b"}, {name: "kind/x"}},
		{{name: ".wh.gone"}, {name: "d/.wh.low"}, {name: "dir/new"}, {name: "dir/.wh..wh..opq"}, {name: "kind", kind: tar.TypeSymlink, link: "keep"}},
	} {
		raw := archive(t, layer...)
		ids = append(ids, image.FromBytes(raw))
		if _, err := l.Unpack(context.Background(), bytes.NewReader(raw), "", ids[len(ids)-1]); err != nil {
			t.Fatal(err)
		}
	}
	lower, err := l.Lower(ids)
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(filepath.Dir(l.dir), "mnt")
	os.Mkdir(at, 0o755)
	if err := unix.Mount("overlay", at, "overlay", 0, "lowerdir="+strings.Join(lower, ":")); err != nil {
		t.Skipf("cannot mount overlay here: %v", err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	var got []string
	filepath.WalkDir(at, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			t.Error(err)
		} else if p != at {
			got = append(got, p[len(at)+1:])
		}
		return nil
	})
	if s := strings.Join(got, " "); s != "d dir dir/new keep kind" {
		t.Errorf("merged tree is %q", s)
	}
}
