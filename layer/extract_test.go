package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cale/filetree"
)

var when = time.Unix(1600000000, 123456789)

// e is one entry of a test archive.
type e struct {
	name  string
	kind  byte // 0: by the name, a directory if it ends in a slash, else a file
	link  string
	data  string
	mode  int64
	uid   int
	major int64
	minor int64
	attrs map[string]string
}

func archive(t testing.TB, entries ...e) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, x := range entries {
		h := &tar.Header{Typeflag: x.kind, Name: x.name, Linkname: x.link, Mode: x.mode, Uid: x.uid, ModTime: when,
			Size: int64(len(x.data)), Devmajor: x.major, Devminor: x.minor, Format: tar.FormatPAX}
		if x.kind == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(x.name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		for k, v := range x.attrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[xattrPrefix+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("%s: %v", x.name, err)
		}
		if _, err := w.Write([]byte(x.data)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return buf.Bytes()
}

func shm(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir, err := os.MkdirTemp("/dev/shm", "cale-layer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// tree makes dir/outside/victim and an empty dir/root, the tree.
func tree(t testing.TB) (dir string, root *filetree.Root) {
	t.Helper()
	dir = shm(t)
	for _, d := range []string{"outside", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "outside/victim"), []byte("untouched"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := filetree.Open(filepath.Join(dir, "root"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

func unpack(t testing.TB, root *filetree.Root, o ExtractOptions, entries ...e) (Extracted, error) {
	t.Helper()
	return Extract(context.Background(), root, bytes.NewReader(archive(t, entries...)), o)
}

func list(t testing.TB, root *filetree.Root) string {
	t.Helper()
	var names []string
	err := root.Walk("", func(e *filetree.Entry) error {
		if e.Path == "" {
			return nil
		}
		n := e.Path
		switch e.Stat.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			n += "/"
			if v, _ := filetree.Xattr(e.Dir, e.Name, "trusted.overlay.opaque"); string(v) == "y" {
				n += "!"
			}
		case unix.S_IFLNK:
			target, _ := e.Readlink()
			n += "->" + target
		case unix.S_IFCHR:
			n += "*"
		}
		names = append(names, n)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}

// TestHostileArchives: nothing may be made, changed or linked outside.
func TestHostileArchives(t *testing.T) {
	up := strings.Repeat("../", 8)
	const secret = "outside/victim"
	for _, c := range []struct {
		name    string
		entries []e
		refused bool
		want    string
	}{
		{"DotDotName", []e{{name: "../outside/victim", data: "evil"}}, true, ""},
		{"DotDotInside", []e{{name: "a/../b", data: "x"}}, false, "b"},
		{"DotDotAfterDir", []e{{name: "a/"}, {name: "a/../../outside/victim", data: "evil"}}, true, "a/"},
		{"AbsoluteName", []e{{name: "/etc/x", data: "x"}}, false, "etc/ etc/x"},
		{"AbsoluteDotDot", []e{{name: "/../../outside/victim", data: "x"}}, false, "outside/ outside/victim"},
		{"SymlinkThenFile", []e{{name: "l", kind: tar.TypeSymlink, link: "../outside"}, {name: "l/victim", data: "evil"}},
			false, "l->../outside outside/ outside/victim"},
		{"SymlinkAbsoluteThenFile", []e{{name: "l", kind: tar.TypeSymlink, link: "/outside"}, {name: "l/victim", data: "evil"}},
			false, "l->/outside outside/ outside/victim"},
		{"SymlinkChain", []e{{name: "a", kind: tar.TypeSymlink, link: up}, {name: "b", kind: tar.TypeSymlink, link: "a/" + up + "outside"}, {name: "b/victim", data: "evil"}},
			false, "a->" + up + " b->a/" + up + "outside outside/ outside/victim"},
		{"SymlinkLoop", []e{{name: "a", kind: tar.TypeSymlink, link: "b"}, {name: "b", kind: tar.TypeSymlink, link: "a"}, {name: "a/x"}}, true, "a->b b->a"},
		{"SymlinkReplacedByFile", []e{{name: "l", kind: tar.TypeSymlink, link: "../" + secret}, {name: "l", data: "mine"}}, false, "l"},
		{"SymlinkReplacedByDir", []e{{name: "l", kind: tar.TypeSymlink, link: "../outside"}, {name: "l/"}, {name: "l/victim", data: "x"}}, false, "l/ l/victim"},
		{"DirReplacedBySymlink", []e{{name: "d/"}, {name: "d/x"}, {name: "d", kind: tar.TypeSymlink, link: "../outside"}, {name: "d/victim", data: "x"}},
			false, "d->../outside outside/ outside/victim"},
		{"HardlinkOut", []e{{name: "h", kind: tar.TypeLink, link: "../" + secret}}, true, ""},
		{"HardlinkAbsolute", []e{{name: "h", kind: tar.TypeLink, link: "/" + secret}}, true, ""},
		{"HardlinkThroughSymlink", []e{{name: "l", kind: tar.TypeSymlink, link: "../outside"}, {name: "h", kind: tar.TypeLink, link: "l/victim"}}, true, "l->../outside"},
		{"HardlinkToSymlink", []e{{name: "l", kind: tar.TypeSymlink, link: "../" + secret}, {name: "h", kind: tar.TypeLink, link: "l"}, {name: "h", data: "mine"}},
			false, "h l->../" + secret},
		{"HardlinkToMissing", []e{{name: "h", kind: tar.TypeLink, link: "lower/file"}}, true, ""},
		{"HardlinkToDir", []e{{name: "d/"}, {name: "h", kind: tar.TypeLink, link: "d"}}, true, "d/"},
		{"HardlinkToRoot", []e{{name: "h", kind: tar.TypeLink, link: "."}}, true, ""},
		{"HardlinkToItself", []e{{name: "h", data: "x"}, {name: "h", kind: tar.TypeLink, link: "h"}}, false, "h"},
		{"FifoThenFile", []e{{name: "f", kind: tar.TypeFifo}, {name: "f", data: "x"}}, false, "f"},
		{"FileThenBelow", []e{{name: "f", data: "x"}, {name: "f/g", data: "x"}}, true, "f"},
		{"RootAsFile", []e{{name: "a/..", data: "x"}}, true, ""},
		{"RootAsSymlink", []e{{name: "./", kind: tar.TypeSymlink, link: "../outside"}}, true, ""},
		{"LongComponent", []e{{name: strings.Repeat("n", 256)}}, true, ""},
		{"LongestComponent", []e{{name: strings.Repeat("n", 255)}}, false, strings.Repeat("n", 255)},
		{"LongPath", []e{{name: strings.Repeat("abcdefg/", 600) + "x"}}, true, ""},
		{"OwnerMinusOne", []e{{name: "f", uid: 1<<32 - 1}}, true, "f"},
		{"OwnerWraps", []e{{name: "f", uid: 1 << 32}}, true, "f"},
		{"WhiteoutOfDots", []e{{name: ".wh..", data: ""}}, true, ""},
		{"WhiteoutOfNothing", []e{{name: ".wh.", data: ""}}, true, ""},
		{"WhiteoutThroughSymlink", []e{{name: "l", kind: tar.TypeSymlink, link: "../outside"}, {name: "l/.wh.victim"}}, false, "l->../outside outside/ outside/victim*"},
		{"OverlayAttributes", []e{{name: "d/", attrs: map[string]string{"trusted.overlay.opaque": "y", "trusted.overlay.redirect": "/etc"}}}, false, "d/"},
		{"DeviceOutOfRange", []e{{name: "d", kind: tar.TypeChar, major: 1 << 20}}, true, ""},
		{"Procfs", []e{{name: "l", kind: tar.TypeSymlink, link: "/proc/self/cwd"}, {name: "l/x", data: "x"}}, false, "l->/proc/self/cwd proc/ proc/self/ proc/self/cwd/ proc/self/cwd/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, root := tree(t)
			_, err := unpack(t, root, ExtractOptions{Layer: true}, c.entries...)
			if c.refused != (err != nil) {
				t.Errorf("refused %v, error %v", c.refused, err)
			}
			if got := list(t, root); got != c.want {
				t.Errorf("tree is %q, want %q", got, c.want)
			}
			if b, _ := os.ReadFile(filepath.Join(dir, secret)); string(b) != "untouched" {
				t.Errorf("the victim holds %q", b)
			}
			out, _ := os.ReadDir(dir)
			in, _ := os.ReadDir(filepath.Join(dir, "outside"))
			if len(out) != 2 || len(in) != 1 {
				t.Errorf("something was made outside: %v %v", out, in)
			}
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(dir, secret), &st); err != nil || st.Nlink != 1 {
				t.Errorf("the victim has %d links (%v)", st.Nlink, err)
			}
		})
	}
}

// TestWhiteouts: the order of entries must not matter (containerd#6991), and
// what the layer brings itself stays.
func TestWhiteouts(t *testing.T) {
	opq, x, d := e{name: "dir/.wh..wh..opq"}, e{name: "dir/x", kind: tar.TypeSymlink, link: "y"}, e{name: "dir/"}
	for _, c := range []struct {
		name    string
		entries []e
		want    string
		opaque  bool
	}{
		{"File", []e{{name: "a/.wh.gone"}}, "a/ a/gone*", false},
		{"OpaqueFirst", []e{opq, d, x}, "dir/! dir/x->y", false},
		{"OpaqueMiddle", []e{d, opq, x}, "dir/! dir/x->y", false},
		{"OpaqueLast", []e{d, x, opq}, "dir/! dir/x->y", false},
		{"OpaqueRoot", []e{{name: ".wh..wh..opq"}, {name: "f"}}, "f", true},
		{"OpaqueRootDot", []e{{name: "./.wh..wh..opq"}, {name: "f"}}, "f", true},
		{"FileThenWhiteout", []e{{name: "f"}, {name: ".wh.f"}}, "f", false},
		{"WhiteoutThenFile", []e{{name: ".wh.f"}, {name: "f"}}, "f", false},
		{"DirThenWhiteout", []e{{name: "d/"}, {name: "d/f"}, {name: ".wh.d"}}, "d/! d/f", false},
		{"WhiteoutThenDir", []e{{name: ".wh.d"}, {name: "d/"}, {name: "d/f"}}, "d/! d/f", false},
		{"WhiteoutThenImpliedDir", []e{{name: ".wh.d"}, {name: "d/e/f"}}, "d/! d/e/ d/e/f", false},
		{"Twice", []e{{name: ".wh.f"}, {name: ".wh.f"}}, "f*", false},
		{"AufsNames", []e{{name: ".wh..wh.aufs"}, {name: ".wh..wh.plnk/"}, {name: ".wh..wh.plnk/1.2"}}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, root := tree(t)
			got, err := unpack(t, root, ExtractOptions{Layer: true}, c.entries...)
			if err != nil {
				t.Fatal(err)
			}
			if l := list(t, root); l != c.want || got.Opaque != c.opaque {
				t.Errorf("tree is %q (opaque %v), want %q (%v)", l, got.Opaque, c.want, c.opaque)
			}
		})
	}
	t.Run("NamesLikeOthersOutsideOfLayers", func(t *testing.T) {
		_, root := tree(t)
		if _, err := unpack(t, root, ExtractOptions{}, e{name: ".wh.f"}, e{name: ".wh..wh..opq"}); err != nil {
			t.Fatal(err)
		}
		if l := list(t, root); l != ".wh..wh..opq .wh.f" {
			t.Errorf("tree is %q", l)
		}
	})
}

func TestImpliedParents(t *testing.T) { // moby#53257
	_, root := tree(t)
	if _, err := unpack(t, root, ExtractOptions{Layer: true}, e{name: "etc/dnf/", mode: 0o700, uid: 5}, e{name: "etc/dnf/dnf.conf"}); err != nil {
		t.Fatal(err)
	}
	st, err := root.Lstat("etc")
	if err != nil || st.Mode&0o7777 != 0o755 || st.Uid != 0 {
		t.Errorf("etc is %o of %d (%v)", st.Mode, st.Uid, err)
	}
	if st, _ := root.Lstat("etc/dnf"); st.Mode&0o7777 != 0o700 || st.Uid != 5 {
		t.Errorf("etc/dnf is %o of %d", st.Mode, st.Uid)
	}
}

func TestAbsoluteSymlinkInTheWay(t *testing.T) { // moby#53258, moby#52653
	_, root := tree(t)
	if _, err := unpack(t, root, ExtractOptions{}, e{name: "var/run", kind: tar.TypeSymlink, link: "/run"}, e{name: "run/"}, e{name: "mnt/"}); err != nil {
		t.Fatal(err)
	}
	for _, into := range []string{"", "var", "/"} {
		prefix := "var/"
		if into == "var" {
			prefix = ""
		}
		_, err := unpack(t, root, ExtractOptions{Into: into, KeepKinds: true},
			e{name: prefix + "run/"}, e{name: prefix + "run/act/one", data: "1"},
			e{name: prefix + "run/act/two", kind: tar.TypeLink, link: prefix + "run/act/one"})
		if err != nil {
			t.Fatal(err)
		}
		if l := list(t, root); l != "mnt/ run/ run/act/ run/act/one run/act/two var/ var/run->/run" {
			t.Errorf("tree is %q", l)
		}
	}
}

func TestKeepKinds(t *testing.T) {
	_, root := tree(t)
	if _, err := unpack(t, root, ExtractOptions{}, e{name: "d/f"}, e{name: "f"}); err != nil {
		t.Fatal(err)
	}
	if _, err := unpack(t, root, ExtractOptions{KeepKinds: true}, e{name: "d"}); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if _, err := unpack(t, root, ExtractOptions{KeepKinds: true}, e{name: "f/"}); err == nil {
		t.Error("a file was replaced by a directory")
	}
	if l := list(t, root); l != "d/ d/f f" {
		t.Errorf("tree is %q", l)
	}
}

func TestAttributes(t *testing.T) {
	_, root := tree(t)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw
	_, err := unpack(t, root, ExtractOptions{Layer: true},
		e{name: "./", mode: 0o711},
		e{name: "sg/", mode: 0o2775, uid: 0},
		e{name: "sg/root-owned"},
		e{name: "ping", mode: 0o4755, uid: 1000, data: "x", attrs: map[string]string{"security.capability": capability, "user.note": "n"}},
		e{name: "open", mode: 0o666}, // whatever the umask
		e{name: "link", kind: tar.TypeSymlink, link: "x", uid: 7},
		e{name: "null", kind: tar.TypeChar, major: 1, minor: 3, mode: 0o666},
		e{name: "disk", kind: tar.TypeBlock, major: 8, minor: 1, mode: 0o660},
		e{name: "fifo", kind: tar.TypeFifo, mode: 0o622},
		e{name: "hard", kind: tar.TypeLink, link: "ping"},
	)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct{ mode, uid uint32 }{
		"": {unix.S_IFDIR | 0o711, 0}, "sg": {unix.S_IFDIR | 0o2775, 0}, "ping": {unix.S_IFREG | 0o4755, 1000},
		"open": {unix.S_IFREG | 0o666, 0}, "link": {unix.S_IFLNK | 0o777, 7}, "null": {unix.S_IFCHR | 0o666, 0},
		"disk": {unix.S_IFBLK | 0o660, 0}, "fifo": {unix.S_IFIFO | 0o622, 0}, "hard": {unix.S_IFREG | 0o4755, 1000},
	} {
		st, err := root.Lstat(name)
		if err != nil || st.Mode != want.mode || st.Uid != want.uid {
			t.Errorf("%q is %o of %d, want %o of %d (%v)", name, st.Mode, st.Uid, want.mode, want.uid, err)
		}
		if name != "hard" && (st.Mtim.Sec != when.Unix() || st.Mtim.Nsec != int64(when.Nanosecond())) {
			t.Errorf("%q was changed at %d.%d", name, st.Mtim.Sec, st.Mtim.Nsec)
		}
	}
	if v, err := filetree.Xattr(root.FD(), "ping", "security.capability"); string(v) != capability {
		t.Errorf("capability is %x (%v)", v, err) // buildah#3294, containerd#2863
	}
	if v, err := filetree.Xattr(root.FD(), "ping", "user.note"); string(v) != "n" && err != unix.ENOTSUP {
		t.Errorf("user attribute is %q (%v)", v, err)
	}
	if st, _ := root.Lstat("null"); st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("null is device %x", st.Rdev)
	}
}

func TestSparse(t *testing.T) {
	needRoot(t)
	// What GNU tar -S --format=gnu writes for 1 MiB of hole and "end".
	_, root := tree(t)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "s", Mode: 0o644, Size: 3, Format: tar.FormatGNU, ModTime: when})
	w.Write([]byte("end"))
	w.Close()
	raw := buf.Bytes()
	h := raw[:512]
	h[156] = 'S'
	copy(h[386:], "00004000000\x0000000000003\x00") // offset 1 MiB, 3 bytes
	copy(h[483:], "00004000003\x00")
	sum := 0
	copy(h[148:], "        ")
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:156], []byte(octal(sum)))
	if _, err := Extract(context.Background(), root, bytes.NewReader(raw), ExtractOptions{Layer: true}); err != nil {
		t.Fatal(err)
	}
	b, err := root.ReadFile("s", 2<<20)
	if err != nil || len(b) != 1<<20+3 || string(b[1<<20:]) != "end" {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if st, _ := root.Lstat("s"); st.Blocks > 64 {
		t.Errorf("the hole was filled: %d blocks", st.Blocks)
	}
}

func octal(v int) string {
	s := "000000"
	b := []byte(s)
	for i := 5; i >= 0; i-- {
		b[i] = byte('0' + v&7)
		v >>= 3
	}
	return string(b) + "\x00 "
}

func TestLimits(t *testing.T) {
	_, root := tree(t)
	if _, err := unpack(t, root, ExtractOptions{Limits: Limits{Bytes: 10}}, e{name: "a", data: "123456"}, e{name: "b", data: "123456"}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("bytes: %v", err)
	}
	if _, err := unpack(t, root, ExtractOptions{Limits: Limits{Entries: 1}}, e{name: "a"}, e{name: "b"}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("entries: %v", err)
	}
	// A sparse file may claim any size, and the sum must not wrap around.
	soon, end := context.WithTimeout(context.Background(), 10*time.Second)
	defer end()
	if _, err := Extract(soon, root, bytes.NewReader(hugeSparse(t)), ExtractOptions{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("sparse: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Extract(ctx, root, bytes.NewReader(archive(t, e{name: "a"})), ExtractOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// hugeSparse is an archive of a file of one byte and one of 8 EiB, all hole (GNU's PAX format 1.0).
func hugeSparse(t *testing.T) []byte {
	t.Helper()
	block := func(name string, kind byte, size int) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(size), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		h := b.Bytes()[:512]
		h[156] = kind
		copy(h[148:], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:156], octal(sum))
		return h
	}
	padded := func(s string) []byte { return append([]byte(s), make([]byte, (512-len(s)%512)%512)...) }
	const records = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n23 GNU.sparse.name=big\n43 GNU.sparse.realsize=9223372036854775807\n"
	out := append(block("a", tar.TypeReg, 1), padded("1")...)
	out = append(append(out, block("x", tar.TypeXHeader, len(records))...), padded(records)...)
	out = append(append(out, block("big", tar.TypeReg, 512)...), padded("0\n")...)
	return append(out, make([]byte, 1024)...)
}

// FuzzExtract: whatever the bytes, nothing happens outside of the tree.
func FuzzExtract(f *testing.F) {
	needRoot(f)
	f.Add(archive(f, e{name: "a/b", data: "x"}, e{name: "l", kind: tar.TypeSymlink, link: "../.."}, e{name: "l/outside/victim"}))
	f.Add(archive(f, e{name: ".wh.a"}, e{name: "a/"}, e{name: "a/.wh..wh..opq"}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir, root := tree(t)
		Extract(context.Background(), root, bytes.NewReader(raw), ExtractOptions{Layer: true, Limits: Limits{Bytes: 1 << 20, Entries: 1000}})
		out, _ := os.ReadDir(dir)
		b, _ := os.ReadFile(filepath.Join(dir, "outside/victim"))
		if len(out) != 2 || string(b) != "untouched" {
			t.Errorf("outside: %v %q", out, b)
		}
	})
}
