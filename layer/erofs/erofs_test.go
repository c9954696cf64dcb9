package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onDisk is a directory whose files the kernel mounts.
func onDisk(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := Supported(dir); err != nil {
		t.Skip(err)
	}
	return dir
}

// image writes a tree and mounts it; the descriptor is of its root.
func image(t testing.TB, dir string, content []byte, root *Node) string {
	t.Helper()
	f, err := os.CreateTemp(dir, "image")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(content, Start); err != nil {
		t.Fatal(err)
	}
	size, err := Write(f, Start+int64(len(content)), root)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != size {
		t.Errorf("size %d, %v, not %d", st.Size(), err, size)
	}
	m, err := Mount(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", m.Fd())
}

// TestKernelReadsIt writes all kinds of files and looks at them through the
// kernel.
func TestKernelReadsIt(t *testing.T) {
	dir := onDisk(t)
	content := make([]byte, 3<<20)
	for i := range content {
		content[i] = byte(i * 7 >> 3)
	}
	file := &Node{Mode: unix.S_IFREG | 0o4751, UID: 1 << 31, GID: 7, Sec: -5, Nsec: 999_999_999, Size: 3<<20 - 700, Offset: Start + 512,
		Xattrs: map[string][]byte{"security.capability": {1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "user.empty": {}, "user.large": bytes.Repeat([]byte("x"), 3000)}}
	long := strings.Repeat("l", 4095)
	root := &Node{Mode: unix.S_IFDIR | 0o1777, Sec: 1 << 33, Children: map[string]*Node{
		"file": file, "again": file, "empty": {Mode: unix.S_IFREG | 0o600},
		"fifo": {Mode: unix.S_IFIFO | 0o644}, "gone": {Mode: unix.S_IFCHR},
		"disk":  {Mode: unix.S_IFBLK | 0o660, Rdev: unix.Mkdev(259, 70000)},
		"dir":   {Mode: unix.S_IFDIR | 0o750, Xattrs: map[string][]byte{"trusted.overlay.opaque": []byte("y")}},
		"link":  {Mode: unix.S_IFLNK | 0o777, Target: "dir/../file"},
		"long":  {Mode: unix.S_IFLNK | 0o777, Target: long},
		"!odd":  {Mode: unix.S_IFREG | 0o644, Size: 1, Offset: Start},
		"many":  {Mode: unix.S_IFDIR | 0o755, Children: map[string]*Node{}},
		"links": {Mode: unix.S_IFDIR | 0o755, Children: map[string]*Node{}},
	}}
	for i := range 5000 {
		root.Children["many"].Children[fmt.Sprintf("%d-%s", i, strings.Repeat("n", i%240))] = &Node{Mode: unix.S_IFREG | 0o644, UID: uint32(i)}
	}
	for i := range 1500 {
		root.Children["links"].Children[fmt.Sprint(i)] = &Node{Mode: unix.S_IFLNK | 0o777, Target: strings.Repeat("t", i%1200+1)}
	}
	at := image(t, dir, content, root)
	stat := func(name string) (st unix.Stat_t) {
		t.Helper()
		if err := unix.Lstat(at+"/"+name, &st); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return st
	}
	st := stat("file")
	if st.Mode != file.Mode || st.Uid != file.UID || st.Gid != file.GID || st.Size != file.Size || st.Nlink != 2 || st.Mtim.Sec != -5 || st.Mtim.Nsec != 999_999_999 {
		t.Errorf("file: %+v", st)
	}
	if again := stat("again"); again.Ino != st.Ino {
		t.Error("a hard link is another file")
	}
	if got, err := os.ReadFile(filepath.Join(at, "file")); err != nil || !bytes.Equal(got, content[512:512+file.Size]) {
		t.Errorf("its content is another, %v", err)
	}
	for name, want := range file.Xattrs {
		buf := make([]byte, 5000)
		n, err := unix.Lgetxattr(filepath.Join(at, "file"), name, buf)
		if err != nil || !bytes.Equal(buf[:n], want) {
			t.Errorf("%s: %q, %v", name, buf[:max(n, 0)], err)
		}
	}
	if st := stat("."); st.Mode != root.Mode || st.Mtim.Sec != 1<<33 || st.Nlink != 5 {
		t.Errorf("root: %+v", st)
	}
	if st := stat("gone"); st.Mode != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("whiteout: %+v", st)
	}
	if st := stat("disk"); st.Rdev != unix.Mkdev(259, 70000) {
		t.Errorf("device: %+v", st)
	}
	buf := make([]byte, 10)
	if n, err := unix.Lgetxattr(filepath.Join(at, "dir"), "trusted.overlay.opaque", buf); err != nil || string(buf[:n]) != "y" {
		t.Errorf("opaque: %q, %v", buf[:max(n, 0)], err)
	}
	for name, want := range map[string]string{"link": "dir/../file", "long": long} {
		if got, err := os.Readlink(filepath.Join(at, name)); err != nil || got != want {
			t.Errorf("%s leads to %.20q, %v", name, got, err)
		}
	}
	for dir, n := range map[string]*Node{"many": root.Children["many"], "links": root.Children["links"], ".": root} {
		list, err := os.ReadDir(filepath.Join(at, dir))
		if err != nil || len(list) != len(n.Children) {
			t.Errorf("%s has %d entries, %v, not %d", dir, len(list), err, len(n.Children))
		}
		for name, c := range n.Children {
			p := filepath.Join(at, dir, name)
			if st := stat(filepath.Join(dir, name)); st.Mode != c.Mode || st.Uid != c.UID {
				t.Errorf("%s: %+v", p, st)
			}
			if got, err := os.Readlink(p); c.isLink() && (err != nil || got != c.Target) {
				t.Errorf("%s leads to %q, %v", p, got, err)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(at, "many", "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}

// TestUnsuited: what the format has no room for is told, and nothing else comes
// of it.
func TestUnsuited(t *testing.T) {
	dir := func(name string, n *Node) *Node {
		return &Node{Mode: unix.S_IFDIR, Children: map[string]*Node{name: n}}
	}
	twice := dir("x", &Node{Mode: unix.S_IFDIR})
	twice.Children["y"] = twice.Children["x"]
	for what, root := range map[string]*Node{
		"no directory":      {Mode: unix.S_IFREG},
		"long name":         dir(strings.Repeat("n", 256), &Node{Mode: unix.S_IFREG}),
		"slash":             dir("a/b", &Node{Mode: unix.S_IFREG}),
		"no name":           dir("", &Node{Mode: unix.S_IFREG}),
		"large attribute":   dir("a", &Node{Mode: unix.S_IFREG, Xattrs: map[string][]byte{"user.a": make([]byte, 1<<16)}}),
		"unknown attribute": dir("a", &Node{Mode: unix.S_IFREG, Xattrs: map[string][]byte{"system.x": nil}}),
		"directory in two":  twice,
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Write(f, Start, root); !errors.Is(err, ErrUnsuited) {
			t.Errorf("%s: %v", what, err)
		}
		f.Close()
	}
}

// FuzzWrite has the kernel read back trees of all shapes.
func FuzzWrite(f *testing.F) {
	f.Add([]byte("a.b/c"), uint16(3), uint32(0o755))
	f.Add(bytes.Repeat([]byte("x"), 4000), uint16(511), uint32(0))
	f.Fuzz(func(t *testing.T, names []byte, size uint16, mode uint32) {
		dir := onDisk(t)
		root := &Node{Mode: unix.S_IFDIR | 0o755, Children: map[string]*Node{}}
		at, depth := root, 0
		for part := range bytes.SplitSeq(names, []byte{'/'}) {
			name := string(part)
			if name == "" || name == "." || name == ".." || len(name) > 255 || strings.Contains(name, "\x00") {
				continue
			}
			n := &Node{Mode: unix.S_IFLNK | 0o777, Target: strings.Repeat("t", int(size)%4095+1)}
			if len(name)%2 == 0 && depth < 20 {
				n = &Node{Mode: unix.S_IFDIR | mode&0o7777, Children: map[string]*Node{}, Xattrs: map[string][]byte{"user." + name[:1]: part}}
				if strings.ContainsAny(name[:1], "\x00") {
					n.Xattrs = nil
				}
			}
			at.Children[name] = n
			if n.isDir() {
				at = n
				depth++
			}
		}
		mounted := image(t, dir, nil, root)
		var look func(path string, n *Node)
		look = func(path string, n *Node) {
			list, err := os.ReadDir(path)
			if err != nil {
				t.Fatal(err)
			}
			var have, want []string
			for _, e := range list {
				have = append(have, e.Name())
			}
			for name := range n.Children {
				want = append(want, name)
			}
			slices.Sort(have)
			slices.Sort(want)
			if !slices.Equal(have, want) {
				t.Fatalf("%s holds %q, not %q", path, have, want)
			}
			for name, c := range n.Children {
				if p := filepath.Join(path, name); c.isDir() {
					look(p, c)
				} else if got, err := os.Readlink(p); err != nil || got != c.Target {
					t.Errorf("%s: %.30q, %v", p, got, err)
				}
			}
		}
		look(mounted, root)
	})
}

// TestLinkWithAttributes: a long link that has attributes too is one as well.
func TestLinkWithAttributes(t *testing.T) {
	target := strings.Repeat("t", Block-1)
	at := image(t, onDisk(t), nil, &Node{Mode: unix.S_IFDIR | 0o755, Children: map[string]*Node{
		"link": {Mode: unix.S_IFLNK | 0o777, Target: target, Xattrs: map[string][]byte{"trusted.x": {1}}},
	}})
	if have, err := os.Readlink(filepath.Join(at, "link")); err != nil || have != target {
		t.Errorf("%q, %v", have, err)
	}
}
