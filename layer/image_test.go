package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cale/image"
	"cale/layer/erofs"
)

// imageStore is a store whose layers become EROFS images, on a disk from which
// the kernel mounts them.
func imageStore(t testing.TB) *Store {
	t.Helper()
	needRoot(t)
	l, err := Open(filepath.Join(t.TempDir(), "layers"))
	if err != nil {
		t.Fatal(err)
	}
	l.Images.Store(true)
	if err := l.NoImages(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// alike unpacks an archive as an image and as a directory and compares the two.
// It tells whether the first became an image at all.
func alike(t testing.TB, l *Store, raw []byte) bool {
	t.Helper()
	id := image.FromBytes(raw)
	plain, err := Open(filepath.Join(t.TempDir(), "layers"))
	if err != nil {
		t.Fatal(err)
	}
	_, want := plain.Unpack(context.Background(), bytes.NewReader(raw), "", id)
	_, have := l.Unpack(context.Background(), bytes.NewReader(raw), "", id)
	if (want == nil) != (have == nil) {
		t.Errorf("as a directory: %v; as an image: %v", want, have)
	}
	if have != nil {
		return false
	}
	if err := l.Show(id); err != nil {
		t.Fatal(err)
	}
	a, _ := plain.info(id)
	b, _ := l.info(id)
	if a.size != b.size || a.opaque != b.opaque || a.implied != b.implied {
		t.Errorf("as a directory: %+v; as an image: %+v", a, b)
	}
	if err := compare(context.Background(), filepath.Join(plain.path(id), "fs"), filepath.Join(l.path(id), "fs"), nil); err != nil {
		t.Error(err)
	}
	if err := l.Verify(context.Background(), bytes.NewReader(raw), id); err != nil {
		t.Error(err)
	}
	return b.image
}

// TestImageLikeDirectory: whatever an archive holds, an image shows the tree that
// a directory would.
func TestImageLikeDirectory(t *testing.T) {
	l := imageStore(t)
	r := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	images := 0
	for range 100 {
		raw := randomArchive(t, r)
		if alike(t, l, raw) {
			images++
		}
		if t.Failed() {
			path := filepath.Join(os.TempDir(), "image-test.tar")
			os.WriteFile(path, raw, 0o600)
			t.Fatalf("see %s", path)
		}
	}
	if images < 8 {
		t.Errorf("only %d of 100 became images", images)
	}
}

// randomArchive holds few names, so that they meet again as something else.
func randomArchive(t testing.TB, r *rand.Rand) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	name := func() string {
		s := []string{"", "a/", "b/", "a/a/"}[r.IntN(4)] + string("cde"[r.IntN(3)])
		if r.IntN(60) == 0 {
			s = "a/b/c" // may be anything, or not there
		}
		return s
	}
	for _, d := range []string{"", "a", "b", "a/a", "c", "c/e", "a/d"} {
		if r.IntN(30) > 0 {
			w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: int64(r.IntN(0o10000)), Uid: r.IntN(70000)})
		}
	}
	for range r.IntN(30) {
		h := &tar.Header{Name: name(), Mode: int64(r.IntN(0o10000)), Uid: r.IntN(1 << 31), Gid: r.IntN(3), ModTime: time.Unix(int64(r.IntN(1<<31)), int64(r.IntN(1e9))), Format: tar.FormatPAX}
		var data []byte
		switch r.IntN(11) {
		case 0, 1:
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case 2:
			h.Typeflag, h.Linkname = tar.TypeLink, name()
		case 3:
			h.Typeflag, h.Linkname = tar.TypeSymlink, strings.Repeat("../", r.IntN(3))+name()
		case 4:
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(r.IntN(3)), int64(r.IntN(300))
		case 5:
			h.Typeflag = tar.TypeFifo
		case 6:
			h.Name = h.Name[:strings.LastIndexByte(h.Name, '/')+1] + ".wh." + string("acd"[r.IntN(3)])
		case 7:
			h.Name = []string{"a", "a/a", "b", "."}[r.IntN(4)] + "/.wh..wh..opq"
		default:
			data = bytes.Repeat([]byte{byte(r.IntN(256))}, r.IntN(3000))
			h.Size = int64(len(data))
			if r.IntN(3) == 0 {
				h.PAXRecords = map[string]string{xattrPrefix + "user.x": "y", xattrPrefix + "trusted.overlay.redirect": "/etc"}
			}
			if r.IntN(4) == 0 {
				h.PAXRecords = map[string]string{xattrPrefix + "security.capability": "\x01\x00\x00\x02\x00\x20" + strings.Repeat("\x00", 14)}
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write(data)
	}
	w.Close()
	return b.Bytes()
}

// TestImageFallsBack: what needs the layers below, or a directory's abilities,
// becomes a directory.
func TestImageFallsBack(t *testing.T) {
	l := imageStore(t)
	for what, raw := range map[string][]byte{
		"a parent that is implied": archive(t, e{name: "a/b", data: "x"}),
		"a parent behind a link":   archive(t, e{name: "d/"}, e{name: "l", kind: tar.TypeSymlink, link: "d"}, e{name: "l/f", data: "x"}),
		"an access list":           archive(t, e{name: "f", data: "x", attrs: map[string]string{"system.posix_acl_access": "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"}}),
	} {
		if alike(t, l, raw) {
			t.Errorf("%s: an image", what)
		}
	}
	for _, n := range left(t, l) {
		if _, err := os.Stat(filepath.Join(l.dir, n, imageFile)); err == nil {
			t.Errorf("%s keeps its image", n)
		}
	}
}

// TestImageHostile: an archive that is refused is refused as an image too, and
// leaves nothing behind.
func TestImageHostile(t *testing.T) {
	l := imageStore(t)
	l.Limits = Limits{Bytes: 1 << 20, Entries: 100}
	for what, entries := range map[string][]e{
		"a way out":            {{name: "../x", data: "x"}},
		"a link to nothing":    {{name: "x", kind: tar.TypeLink, link: "none"}},
		"a link to a whiteout": {{name: ".wh.a"}, {name: "x", kind: tar.TypeLink, link: "a"}},
		"too much":             {{name: "x", data: strings.Repeat("x", 2<<20)}},
		"a root that is none":  {{name: ".", kind: tar.TypeReg, data: "x"}},
	} {
		raw := archive(t, entries...)
		if _, err := l.Unpack(context.Background(), bytes.NewReader(raw), "", image.FromBytes(raw)); err == nil {
			t.Errorf("%s: no error", what)
		}
		if _, err := l.Unpack(context.Background(), bytes.NewReader(raw), "", image.FromBytes([]byte("x"))); err == nil {
			t.Errorf("%s: no error for another digest", what)
		}
	}
	if n := left(t, l); len(n) > 0 {
		t.Errorf("left behind: %v", n)
	}
}

// TestImageStack: images and directories make one overlay; removed layers are
// gone with their mounts, and damage is seen.
func TestImageStack(t *testing.T) {
	l := imageStore(t)
	put := func(entries ...e) image.Digest {
		t.Helper()
		raw := archive(t, entries...)
		id := image.FromBytes(raw)
		if _, err := l.Unpack(context.Background(), bytes.NewReader(raw), "", id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	ids := []image.Digest{
		put(e{name: "d/"}, e{name: "d/old", data: "old"}, e{name: "d/gone", data: "x"}, e{name: "keep", data: "kept"}, e{name: "o/"}, e{name: "o/hidden", data: "x"}),
		put(e{name: "d/sub/new", data: "implied"}),
		put(e{name: "d/"}, e{name: "d/.wh.gone"}, e{name: "d/old", data: "new"}, e{name: "o/"}, e{name: "o/.wh..wh..opq"}),
	}
	lower, err := l.Lower(ids)
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "merged")
	os.Mkdir(at, 0o755)
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	for name, want := range map[string]string{"d/old": "new", "keep": "kept", "d/sub/new": "implied"} {
		if got, err := os.ReadFile(filepath.Join(at, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"d/gone", "o/hidden"} {
		if _, err := os.Lstat(filepath.Join(at, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	if err := l.Remove(ids[0]); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(filepath.Join(at, "keep")); err != nil || string(got) != "kept" {
		t.Errorf("a mounted layer went: %q, %v", got, err)
	}
	f, err := os.OpenFile(filepath.Join(l.path(ids[2]), imageFile), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, _ := f.Stat()
	for _, off := range []int64{erofs.Start + 100, st.Size() - 4000} {
		var b [1]byte
		f.ReadAt(b[:], off)
		f.WriteAt([]byte{b[0] ^ 1}, off)
		if err := l.VerifyImage(context.Background(), ids[2]); !errors.Is(err, ErrDamaged) {
			t.Errorf("a wrong byte at %d: %v", off, err)
		}
		f.WriteAt(b[:], off)
	}
	if err := l.VerifyImage(context.Background(), ids[2]); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(info), " "+l.dir+"/") {
		t.Errorf("mounts are left: %v", err)
	}
}

// FuzzImage: an archive of any bytes is the same tree as an image and as a
// directory, or refused as both.
func FuzzImage(f *testing.F) {
	f.Add(archive(f, e{name: "a/"}, e{name: "a/b", data: "x"}, e{name: "l", kind: tar.TypeLink, link: "a/b"}))
	f.Add(archive(f, e{name: ".wh..wh..opq"}, e{name: "s", kind: tar.TypeSymlink, link: "x"}))
	f.Fuzz(func(t *testing.T, raw []byte) { alike(t, imageStore(t), raw) })
}

func BenchmarkUnpackImage(b *testing.B) {
	raw := archive(b, e{name: "usr/"}, e{name: "usr/lib/"})
	raw = append(raw[:len(raw)-1024], benchTar(mathrand.New(mathrand.NewSource(1)), 5000, 10_000)...)
	for _, images := range []bool{false, true} {
		b.Run(fmt.Sprintf("images=%v", images), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			l := imageStore(b)
			l.Images.Store(images)
			id := image.FromBytes(raw)
			for b.Loop() {
				if _, err := l.Unpack(context.Background(), io.Reader(bytes.NewReader(raw)), "", id); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				l.Remove(id)
				b.StartTimer()
			}
		})
	}
}

// full is a disk that has no room once.
type full struct{ writes int }

func (f *full) Write(p []byte) (int, error) {
	if f.writes++; f.writes == 2 {
		return 0, unix.ENOSPC
	}
	return len(p), nil
}

// TestArchiveWithoutGap: when a part of an archive could not be written, nothing
// after it is: all that was read counts for the digest, which would not tell.
func TestArchiveWithoutGap(t *testing.T) {
	raw := make([]byte, 5*chunkSize)
	d, err := newDecoder(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	a := newAhead(d)
	defer a.Close()
	disk := &full{}
	r := &hashing{src: a, h: image.FromBytes(raw).Hash(), to: disk, left: 1 << 30}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the first error: %v", err)
	}
	if err := r.drain(t.Context()); !errors.Is(err, unix.ENOSPC) || disk.writes != 2 {
		t.Errorf("reading on: %v after %d writes", err, disk.writes)
	}
}

// TestImageOfBuilder: a builder's mounts stay when the engine, whose mounts its
// mount namespace gets too, takes its own down.
func TestImageOfBuilder(t *testing.T) {
	l := imageStore(t)
	raw := archive(t, e{name: "d/", mode: 0o755})
	id := image.FromBytes(raw)
	if err := unix.Mount(l.dir, l.dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(l.dir, unix.MNT_DETACH) })
	if err := unix.Mount("", l.dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Unpack(t.Context(), bytes.NewReader(raw), "", id); err != nil {
		t.Fatal(err)
	}
	step := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, "")
		}
		step <- err
		<-step
		shared, err := OpenShared(l.dir, t.TempDir())
		var dirs []string
		if err == nil {
			dirs, err = shared.Lower([]image.Digest{id})
		}
		step <- err
		<-step
		if err == nil {
			_, err = os.Lstat(filepath.Join(dirs[0], "d"))
		}
		step <- err
	}()
	for _, engine := range []func() error{func() error { return l.Show(id) }, l.Close} {
		if err := <-step; err != nil {
			t.Fatal(err)
		}
		if err := engine(); err != nil {
			t.Fatal(err)
		}
		step <- nil
	}
	if err := <-step; err != nil {
		t.Errorf("what the builder has: %v", err)
	}
}
