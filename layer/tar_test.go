package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTarRoundTrip: what was unpacked packs into the same tree again.
func TestTarRoundTrip(t *testing.T) {
	_, root := tree(t)
	long := strings.Repeat("long/", 60) + strings.Repeat("n", 200)
	_, err := unpack(t, root, ExtractOptions{Layer: true},
		e{name: "./", mode: 0o750}, e{name: "d/", mode: 0o1777}, e{name: "d/.wh..wh..opq"}, e{name: "d/.wh.gone"}, e{name: "z/.wh.too"},
		e{name: "d/a", data: "content", mode: 0o4755, uid: 3000000}, e{name: "d/b", kind: tar.TypeLink, link: "d/a"}, e{name: long, data: "x"},
		e{name: "l", kind: tar.TypeSymlink, link: "../../etc/passwd"}, e{name: "fifo", kind: tar.TypeFifo},
		e{name: "dev", kind: tar.TypeBlock, major: 259, minor: 70000}, e{name: "empty"}, e{name: "uml\u00e4ut\xff"})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := net.Listen("unix", filepath.Join(root.Name(), "sock")); err == nil {
		defer l.Close() // is left out
	}
	var buf bytes.Buffer
	if err := Tar(context.Background(), &buf, root, TarOptions{Name: ".", Layer: true}); err != nil {
		t.Fatal(err)
	}
	_, again := tree(t)
	got, err := Extract(context.Background(), again, bytes.NewReader(buf.Bytes()), ExtractOptions{Layer: true})
	if err != nil {
		t.Fatal(err)
	}
	if got.Opaque {
		t.Error("became opaque")
	}
	unix.Unlinkat(root.FD(), "sock", 0)
	if a, b := list(t, root), list(t, again); a != b {
		t.Errorf("%s\nbecame\n%s", a, b)
	}
	for _, name := range []string{"", "d", "d/a", "l", "fifo", "dev", "empty", long} {
		a, aerr := root.Lstat(name)
		b, berr := again.Lstat(name)
		if aerr != nil || berr != nil || a.Mode != b.Mode || a.Uid != b.Uid || a.Rdev != b.Rdev || a.Mtim != b.Mtim && name != "" || a.Nlink != b.Nlink || a.Size != b.Size && name != "" && name != "d" {
			t.Errorf("%.20q: %+v became %+v (%v, %v)", name, a, b, aerr, berr)
		}
	}
}

// TestHardLinkAcrossDeletion: of two names in a lower layer one was deleted;
// the other packs as a file (appc/docker2aci#98).
func TestHardLinkAcrossDeletion(t *testing.T) {
	_, root := tree(t)
	if _, err := unpack(t, root, ExtractOptions{}, e{name: "A", data: "content"}, e{name: "Z", kind: tar.TypeLink, link: "A"}); err != nil {
		t.Fatal(err)
	}
	unix.Unlinkat(root.FD(), "A", 0)
	var buf bytes.Buffer
	if err := Tar(context.Background(), &buf, root, TarOptions{}); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&buf)
	h, err := r.Next()
	b, _ := io.ReadAll(r)
	if err != nil || h.Name != "Z" || h.Typeflag != tar.TypeReg || string(b) != "content" {
		t.Errorf("%+v, %q, %v", h, b, err)
	}
}

func TestTarNames(t *testing.T) {
	_, root := tree(t)
	if _, err := unpack(t, root, ExtractOptions{}, e{name: "a/b/c", data: "x"}, e{name: "l", kind: tar.TypeSymlink, link: "/a/b"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    TarOptions
		want string
	}{
		{TarOptions{}, "a/ a/b/ a/b/c l"},
		{TarOptions{Name: "."}, "./ ./a/ ./a/b/ ./a/b/c ./l"},
		{TarOptions{Name: "/"}, "/ /a/ /a/b/ /a/b/c /l"},
		{TarOptions{Start: "a/b", Name: "copy"}, "copy/ copy/c"},
		{TarOptions{Start: "/l/c", Name: "c"}, "c"},
		{TarOptions{Start: "l", Name: "l"}, "l"},
		{TarOptions{Start: "a", Name: "x", Contents: true}, "x/b/ x/b/c"},
	} {
		var buf bytes.Buffer
		if err := Tar(context.Background(), &buf, root, c.o); err != nil {
			t.Fatal(err)
		}
		var names []string
		for r := tar.NewReader(&buf); ; {
			h, err := r.Next()
			if err != nil {
				break
			}
			names = append(names, h.Name)
		}
		if s := strings.Join(names, " "); s != c.want {
			t.Errorf("%+v: %s", c.o, s)
		}
	}
}

// TestBound: as much as is allowed passes, and one byte more is an error, not an end.
func TestBound(t *testing.T) {
	for size, whole := range map[int]bool{0: true, 9: true, 10: true, 11: false, 1000: false} {
		got, err := io.ReadAll(Bound(bytes.NewReader(make([]byte, size)), 10))
		if whole && (err != nil || len(got) != size) || !whole && (!errors.Is(err, ErrTooLarge) || len(got) > 10) {
			t.Errorf("of %d bytes %d came, %v", size, len(got), err)
		}
	}
}
