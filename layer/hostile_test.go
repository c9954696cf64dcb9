package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cale/image"
)

// repeated is an endless archive: the entries that make writes, for i from 0 on, n times.
func repeated(n int, make func(i int) *tar.Header) io.Reader {
	r, w := io.Pipe() // whoever stops reading leaves the writer behind, in a test
	go func() {
		bw := bufio.NewWriterSize(w, 1<<20)
		tw := tar.NewWriter(bw)
		for i := range n {
			if err := tw.WriteHeader(make(i)); err != nil {
				w.CloseWithError(err)
				return
			}
		}
		tw.Close()
		w.CloseWithError(bw.Flush())
	}()
	return r
}

// heap runs f and tells by how many bytes the heap had grown at its end.
func heap(f func()) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

// TestMillionEntries: the number of entries costs time, and no memory that grows with it.
func TestMillionEntries(t *testing.T) {
	_, root := tree(t)
	n := 1 << 20
	if testing.Short() {
		n = 1 << 14
	}
	var hundred []byte
	for i := range 100 {
		hundred = append(hundred, header(t, "d/"+strconv.Itoa(i), tar.TypeDir, 0)...)
	}
	grown := heap(func() {
		r := &cycle{b: hundred, left: n * 512}
		got, err := Extract(context.Background(), root, r, ExtractOptions{Layer: true})
		if err != nil || got.Entries < int64(n) {
			t.Errorf("%+v, %v", got, err)
		}
	})
	if grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// cycle reads b again and again.
type cycle struct {
	b        []byte
	at, left int
}

func (c *cycle) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.left)], c.b[c.at:])
	c.at = (c.at + n) % len(c.b)
	c.left -= n
	return n, nil
}

// TestEntriesOfOneName: the last of many entries with one name counts, of whatever kinds they were.
func TestEntriesOfOneName(t *testing.T) {
	_, root := tree(t)
	kinds := []byte{tar.TypeReg, tar.TypeFifo, tar.TypeSymlink, tar.TypeDir, tar.TypeChar, tar.TypeLink}
	r := repeated(6001, func(i int) *tar.Header {
		h := &tar.Header{Typeflag: kinds[i%len(kinds)], Name: "x", Mode: 0o640, Devmajor: 1, Devminor: 3, Format: tar.FormatPAX}
		switch h.Typeflag {
		case tar.TypeSymlink:
			h.Linkname = "/etc"
		case tar.TypeLink:
			h.Linkname = "x"
		}
		return h
	})
	if _, err := Extract(context.Background(), root, r, ExtractOptions{Layer: true}); err != nil {
		t.Fatal(err)
	}
	if l := list(t, root); l != "x" {
		t.Errorf("tree is %q", l)
	}
}

// TestImpliedBomb: an entry implies up to two thousand directories, which count like entries.
func TestImpliedBomb(t *testing.T) {
	_, root := tree(t)
	deep := strings.Repeat("d/", 500)
	r := repeated(1000, func(i int) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeReg, Name: strconv.Itoa(i) + "/" + deep + "f", Mode: 0o644, Format: tar.FormatPAX}
	})
	_, err := Extract(context.Background(), root, r, ExtractOptions{Layer: true, Limits: Limits{Entries: 5000}})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	root.RemoveAll("0")
}

// TestDirectoryNamesAreBounded: what is remembered of directories until the end must not fill the memory.
func TestDirectoryNamesAreBounded(t *testing.T) {
	long := strings.Repeat(strings.Repeat("n", 255)+"/", 15)
	for _, kind := range []byte{tar.TypeDir, tar.TypeReg} { // named, and implied
		_, root := tree(t)
		n := 0
		r := repeated(1<<20, func(i int) *tar.Header {
			n = i
			h := &tar.Header{Typeflag: kind, Name: long + strconv.Itoa(i), Mode: 0o755, Format: tar.FormatPAX}
			if kind == tar.TypeReg {
				h.Name += "/f"
			}
			return h
		})
		if _, err := Extract(context.Background(), root, r, ExtractOptions{Layer: true, Limits: Limits{Memory: 4 << 20}}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v", err)
		}
		if n < 1000 || n > 2000 {
			t.Errorf("it ended after %d entries", n)
		}
	}
}

// TestDeepTree: links in an archive lead below directories so deep that no path names them.
func TestDeepTree(t *testing.T) {
	l := openStore(t)
	deep := strings.Repeat("abcdefg/", 100)
	entries := []e{{name: deep}, {name: "l", kind: tar.TypeSymlink, link: deep}}
	for i := range 20 {
		entries = append(entries, e{name: "l/" + deep}, e{name: fmt.Sprintf("l%d", i), kind: tar.TypeSymlink, link: "l/" + deep},
			e{name: "l", kind: tar.TypeSymlink, link: strings.Repeat("abcdefg/", 100*min(i+2, 5))})
	}
	raw := archive(t, entries...)
	id := image.FromBytes(raw)
	if _, err := l.Unpack(context.Background(), bytes.NewReader(raw), "", id); err != nil {
		t.Fatal(err)
	}
	if err := l.Verify(context.Background(), bytes.NewReader(raw), id); err != nil {
		t.Error(err)
	}
	if err := l.Remove(id); err != nil {
		t.Error(err)
	}
	if n := left(t, l); len(n) != 0 {
		t.Errorf("left: %v", n)
	}
}

// TestZeros: gigabytes of zeros from kilobytes end at the limit, or where the disk does, and leave nothing.
func TestZeros(t *testing.T) {
	header := header(t, "zeros", tar.TypeReg, 0)
	copy(header[124:], "77777777777") // 8 GiB in octal
	sum := 0
	copy(header[148:], "        ")
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:156], octal(sum))
	bomb := func() io.Reader { return io.MultiReader(bytes.NewReader(header), zeros{}) }
	id := image.FromBytes(nil)

	l := openStore(t)
	l.Limits.Bytes = 64 << 20
	if _, err := l.Unpack(context.Background(), bomb(), "", id); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if n := left(t, l); len(n) != 0 {
		t.Errorf("left: %v", n)
	}

	dir := filepath.Join(filepath.Dir(l.dir), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	l, err := Open(filepath.Join(dir, "layers"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Unpack(context.Background(), bomb(), "", id); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if n := left(t, l); len(n) != 0 {
		t.Errorf("left: %v", n)
	}
	good := archive(t, e{name: "f", data: "1"})
	if _, err := l.Unpack(context.Background(), bytes.NewReader(good), "", image.FromBytes(good)); err != nil {
		t.Errorf("after that: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestAttributesThroughLinks: what is set at the end must not go through a link that has taken a directory's place
// (CVE-2021-32760, CVE-2025-47290).
func TestAttributesThroughLinks(t *testing.T) {
	dir, root := tree(t)
	_, err := unpack(t, root, ExtractOptions{Layer: true},
		e{name: "d/", mode: 0o777, uid: 1234}, e{name: "p/d/", mode: 0o777, uid: 1234},
		e{name: "d", kind: tar.TypeSymlink, link: "../outside"}, e{name: "p", kind: tar.TypeSymlink, link: "/q"},
		e{name: "q/d", kind: tar.TypeSymlink, link: "../../outside", mode: 0o777, uid: 4321})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "outside"), &st); err != nil || st.Mode&0o7777 != 0o755 || st.Uid != 0 {
		t.Errorf("outside is %o of %d (%v)", st.Mode, st.Uid, err)
	}
	if l := list(t, root); l != "d->../outside p->/q q/ q/d->../../outside" {
		t.Errorf("tree is %q", l)
	}
}

// TestWhiteoutsAnyOrder unpacks layers that add and remove in all orders and at once: the trees are the same
// (containerd#13030).
func TestWhiteoutsAnyOrder(t *testing.T) {
	layers := [][]e{{{name: "base", data: "1"}, {name: "d/x"}}, {{name: "gone", data: "2"}, {name: "d/y"}}, {{name: ".wh.gone"}, {name: "d/.wh.x"}}}
	var raws [][]byte
	var ids []image.Digest
	for _, entries := range layers {
		raws = append(raws, archive(t, entries...))
		ids = append(ids, image.FromBytes(raws[len(raws)-1]))
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, nil} {
		l := openStore(t)
		one := func(i int) error {
			_, err := l.Unpack(context.Background(), bytes.NewReader(raws[i]), "", ids[i])
			return err
		}
		if order == nil {
			errs := make(chan error)
			for i := range ids {
				go func() { errs <- one(i) }()
			}
			for range ids {
				if err := <-errs; err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, i := range order {
			if err := one(i); err != nil {
				t.Fatal(err)
			}
		}
		lower, err := l.Lower(ids)
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(filepath.Dir(l.dir), "merged")
		os.Mkdir(at, 0o755)
		if err := unix.Mount("overlay", at, "overlay", 0, "lowerdir="+strings.Join(lower, ":")); err != nil {
			t.Skipf("cannot mount overlay here: %v", err)
		}
		var got []string
		filepath.WalkDir(at, func(p string, _ os.DirEntry, err error) error {
			if err == nil && p != at {
				got = append(got, p[len(at)+1:])
			}
			return err
		})
		unix.Unmount(at, unix.MNT_DETACH)
		if s := strings.Join(got, " "); s != "base d d/y" {
			t.Errorf("order %v: %q", order, s)
		}
	}
}
