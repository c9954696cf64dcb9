package filetree

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree is a directory "outside" with a file, and an empty tree beside it.
func tree(t testing.TB) (dir string, r *Root) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cale-tree-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.MkdirAll(filepath.Join(dir, "outside/dir"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "outside/victim"), []byte("untouched"), 0o644))
	must(t, os.Mkdir(filepath.Join(dir, "root"), 0o755))
	r, err = Open(filepath.Join(dir, "root"))
	must(t, err)
	t.Cleanup(func() { r.Close() })
	return dir, r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *Root) path(name string) string { return filepath.Join(r.name, name) }

func TestResolution(t *testing.T) {
	dir, r := tree(t)
	must(t, os.MkdirAll(r.path("etc"), 0o755))
	must(t, os.WriteFile(r.path("etc/f"), []byte("in"), 0o644))
	for link, target := range map[string]string{
		"abs": "/etc", "rel": "etc/../etc", "up": "../../../../../../etc", "host": dir + "/outside", "magic": "/proc/self/root/etc", "loop": "loop",
	} {
		must(t, os.Symlink(target, r.path(link)))
	}
	for name, ok := range map[string]bool{
		"etc/f": true, "/etc/f": true, "abs/f": true, "rel/f": true, "up/f": true, "../../etc/f": true, "/../etc/f": true,
		"host/victim": false, "magic/f": false, "loop/f": false, "../outside/victim": false, "etc/f/x": false,
	} {
		b, err := r.ReadFile(name, 10)
		if ok != (err == nil) || ok && string(b) != "in" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	// The real procfs inside a tree offers ways out, which are not taken.
	must(t, os.Mkdir(r.path("proc"), 0o755))
	if err := unix.Mount("proc", r.path("proc"), "proc", 0, ""); err == nil {
		_, err := r.OpenFD("proc/self/root/etc", unix.O_PATH, 0)
		unix.Unmount(r.path("proc"), unix.MNT_DETACH)
		if !errors.Is(err, unix.ELOOP) {
			t.Errorf("a magic link was followed: %v", err)
		}
	}
}

func TestReadFile(t *testing.T) { // CVE-2025-4437 and /etc/passwd as a fifo
	_, r := tree(t)
	must(t, os.WriteFile(r.path("big"), make([]byte, 100), 0o644))
	must(t, unix.Mkfifo(r.path("fifo"), 0o644))
	if _, err := r.ReadFile("big", 99); !errors.Is(err, ErrTooLarge) {
		t.Errorf("big: %v", err)
	}
	for _, name := range []string{"fifo", "/"} {
		if _, err := r.ReadFile(name, 99); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	// A device that no driver serves: opening it would say ENXIO.
	if err := unix.Mknod(r.path("device"), unix.S_IFCHR|0o666, int(unix.Mkdev(4095, 1))); err == nil {
		if _, err := r.ReadFile("device", 99); err == nil || errors.Is(err, unix.ENXIO) {
			t.Errorf("a device was opened: %v", err)
		}
		must(t, r.Walk("device", func(e *Entry) error {
			if fd, err := e.OpenRegular(); err != unix.ESTALE {
				t.Errorf("a device was opened as a file: %d, %v", fd, err)
			}
			return nil
		}))
	}
	if _, err := r.ReadFile("none", 9); !NotExist(err) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
}

func TestMkdirAll(t *testing.T) {
	_, r := tree(t)
	must(t, os.Mkdir(r.path("sg"), 0o755))
	must(t, os.Chmod(r.path("sg"), 0o2755|os.ModeSetgid))
	must(t, os.WriteFile(r.path("file"), nil, 0o644))
	for link, target := range map[string]string{"run": "/made/run", "rel": "x/../y", "chain": "run/deeper", "loop": "loop2", "loop2": "loop", "out": "../../../escape"} {
		must(t, os.Symlink(target, r.path(link)))
	}
	deep := strings.Repeat("d/", 1000)
	for _, c := range []struct{ name, made string }{
		{"a/b/c", "a/b/c"}, {"/a/b/c/", "a/b/c"}, {"run/x", "made/run/x"}, {"chain/y", "made/run/deeper/y"}, {"out/z", "escape/z"},
		{"sg/a/b", "sg/a/b"}, {deep, deep}, {"", ""}, {"loop/a", "!"}, {"file/a", "!"}, {"file", "!"}, {strings.Repeat("n", 256), "!"},
	} {
		fd, err := r.MkdirAll(c.name, 0o777)
		if c.made == "!" {
			if err == nil {
				t.Errorf("%.20s was made", c.name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%.20s: %v", c.name, err)
			continue
		}
		unix.Close(fd)
		fi, err := os.Lstat(r.path(c.made))
		if err != nil || !fi.IsDir() || c.made != "" && fi.Mode().Perm() != 0o777 {
			t.Errorf("%.20s: %v, %v", c.name, fi.Mode(), err)
		}
	}
	if fi, _ := os.Stat(r.path("sg/a/b")); fi.Mode()&os.ModeSetgid == 0 {
		t.Error("the set-group-ID bit was lost") // runc#4401
	}
}

func TestRemoveAll(t *testing.T) {
	dir, r := tree(t)
	must(t, os.MkdirAll(r.path("d/e/f"), 0o755))
	must(t, os.Symlink(dir+"/outside", r.path("d/link")))
	must(t, os.Symlink("../outside", r.path("link")))
	must(t, os.Chmod(r.path("d/e"), 0))
	for i := range 500 {
		must(t, os.WriteFile(r.path("d/"+strings.Repeat("x", 100)+string(rune('a'+i%26))+strings.Repeat("y", i%90)), nil, 0o644))
	}
	for _, name := range []string{"d", "link", "d", "none/x"} {
		if err := r.RemoveAll(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "/", ".."} {
		if err := r.RemoveAll(name); err == nil {
			t.Errorf("%q was removed", name)
		}
	}
	if list, _ := os.ReadDir(r.name); len(list) != 0 {
		t.Errorf("left: %v", list)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "outside/victim")); string(b) != "untouched" {
		t.Error("removed through a link")
	}
}

// TestRemoveDeep: a tree too deep for a path, or for one descriptor a level.
func TestRemoveDeep(t *testing.T) {
	_, r := tree(t)
	fd, err := r.MkdirAll("deep", 0o755)
	must(t, err)
	for range 5000 {
		must(t, unix.Mkdirat(fd, "d", 0o755))
		next, err := unix.Openat(fd, "d", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		must(t, err)
		fd = next
	}
	unix.Close(fd)
	must(t, r.RemoveAll("deep"))
	must(t, r.Empty())
	if list, _ := os.ReadDir(r.name); len(list) != 0 {
		t.Errorf("left: %v", list)
	}
}

func TestRemoveStopsAtMounts(t *testing.T) {
	dir, r := tree(t)
	must(t, os.MkdirAll(r.path("d/m"), 0o755))
	if err := unix.Mount(dir+"/outside", r.path("d/m"), "", unix.MS_BIND, ""); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	defer unix.Unmount(r.path("d/m"), unix.MNT_DETACH)
	if err := r.RemoveAll("d"); err == nil {
		t.Error("a tree with something mounted was removed")
	}
	if _, err := os.Stat(dir + "/outside/victim"); err != nil {
		t.Error(err)
	}
}

func TestWalk(t *testing.T) {
	_, r := tree(t)
	must(t, os.MkdirAll(r.path("a/skip/x"), 0o755))
	must(t, os.MkdirAll(r.path("b"), 0o755))
	must(t, os.Symlink("a", r.path("l")))
	var got []string
	must(t, r.Walk("", func(e *Entry) error {
		got = append(got, e.Path)
		if e.Name == "skip" {
			return fs.SkipDir
		}
		return nil
	}))
	if s := strings.Join(got, " "); s != " a a/skip b l" {
		t.Errorf("walked %q", s)
	}
	if err := r.Walk("none", func(*Entry) error { return nil }); !NotExist(err) {
		t.Errorf("got %v", err)
	}
}

func TestCopyTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, r := tree(t)
	must(t, os.Mkdir(dir+"/copy", 0o700))
	dst, err := Open(dir + "/copy")
	must(t, err)
	defer dst.Close()
	must(t, os.MkdirAll(r.path("data/sub"), 0o755))
	must(t, os.Symlink("/data", r.path("link")))
	must(t, os.Chown(r.path("data"), 10, 20))
	must(t, os.Chmod(r.path("data"), 0o750))
	f, err := os.Create(r.path("data/sparse"))
	must(t, err)
	f.WriteAt([]byte("end"), 1<<20)
	f.Close()
	must(t, os.Chown(r.path("data/sparse"), 7, 8))
	must(t, unix.Chmod(r.path("data/sparse"), 0o4711))
	must(t, os.Link(r.path("data/sparse"), r.path("data/sub/other")))
	must(t, os.Symlink("../../outside", r.path("data/l")))
	must(t, unix.Mkfifo(r.path("data/fifo"), 0o622))
	must(t, CopyTree(context.Background(), dst, r, "/link"))
	for _, name := range []string{"", "sparse", "sub/other", "sub", "l", "fifo"} {
		a, err := r.Lstat("data/" + name)
		must(t, err)
		b, err := dst.Lstat(name)
		if err != nil || a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Mtim != b.Mtim || a.Nlink != b.Nlink {
			t.Errorf("%q: %+v became %+v (%v)", name, a, b, err)
		}
	}
	if b, _ := dst.Lstat("sparse"); b.Blocks > 64 || b.Size != 1<<20+3 {
		t.Errorf("sparse: %d bytes in %d blocks", b.Size, b.Blocks)
	}
}

func TestWriteFile(t *testing.T) {
	dir, r := tree(t)
	must(t, os.Symlink(dir+"/outside/victim", r.path("f")))
	must(t, r.WriteFile("f", []byte("new"), 0o640))
	if b, err := r.ReadFile("f", 9); err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
	if b, _ := os.ReadFile(dir + "/outside/victim"); string(b) != "untouched" {
		t.Error("written through a link")
	}
	if list, _ := os.ReadDir(r.name); len(list) != 1 {
		t.Errorf("left: %v", list)
	}
}
