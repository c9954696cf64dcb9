package command

import (
	"context"
	gofs "io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"cale/filetree"
)

func place(t *testing.T, root string, env ...string) Place {
	t.Helper()
	r, err := filetree.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	at, closer := Away(env, r, "/")
	t.Cleanup(closer)
	return at
}

func listing(t *testing.T, fs fsutil.FS, target string) (out []string) {
	t.Helper()
	err := fs.Walk(context.Background(), target, func(path string, e gofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Name() == "left-out" {
			return filepath.SkipDir
		}
		i, err := e.Info()
		if err != nil {
			return err
		}
		out = append(out, path+" "+e.Type().Type().String()+" "+i.Sys().(*types.Stat).String())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFolderIsAsFsutilsOwn: else a file would be another one to the build cache
// by who reads it.
func TestFolderIsAsFsutilsOwn(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	must(os.MkdirAll(at("d/deep/er"), 0o755))
	must(os.MkdirAll(at("left-out/x"), 0o755))
	must(os.WriteFile(at("d/file"), []byte("hello"), 0o640))
	must(os.WriteFile(at("a.b"), nil, 0o600))
	must(os.WriteFile(at("d/deep/er/set"), []byte("x"), 0o755))
	must(os.Chmod(at("d/deep/er/set"), 0o755|os.ModeSetuid|os.ModeSetgid))
	must(os.Chmod(at("d/deep"), 0o777|os.ModeSticky))
	must(os.Link(at("d/file"), at("zlink")))
	must(os.Symlink("/etc/passwd", at("d/link")))
	must(unix.Mkfifo(at("fifo"), 0o600))
	_ = unix.Lsetxattr(at("a.b"), "user.kind", []byte("value"), 0)
	if os.Geteuid() == 0 {
		must(os.Lchown(at("d/link"), 12, 34))
		_ = unix.Mknod(at("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	}
	theirs, err := fsutil.NewFS(dir)
	must(err)
	ours, err := place(t, dir).Folder("/")
	must(err)
	for _, target := range []string{"", "d", "d/deep/er"} {
		want, got := listing(t, theirs, target), listing(t, ours, target)
		if len(want) != len(got) || len(got) == 0 {
			t.Fatalf("%q:\n%q\nwant\n%q", target, got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%q: %s\nwant %s", target, got[i], want[i])
			}
		}
	}
	if _, err := ours.Open("d/link"); err == nil {
		t.Error("a link led out of the folder")
	}
}

func TestAwayReadsNoFileOfThisProcess(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/config.json", []byte(`{"credsStore":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	root := place(t, "/", "HOME=/nowhere")
	for _, path := range []string{"/proc/self/fd/0", "/dev/stdin", "/proc/self/cwd"} {
		if _, err := root.Is(path); err == nil {
			t.Errorf("%s was found", path)
		}
	}
	if _, err := place(t, dir, "DOCKER_CONFIG=/").Logins(); err == nil {
		t.Error("a helper of another process's would have been started")
	}
	if _, err := place(t, dir, "HOME=/nowhere").Logins(); err != nil {
		t.Error(err)
	}
	const inEnv = "DOCKER_AUTH_CONFIG"
	if _, err := place(t, dir, "HOME=/nowhere", inEnv+`={"auths":{}}`).Logins(); err == nil {
		t.Error("logins in another's environment would have been left out")
	}
	t.Setenv(inEnv, `{"auths":{}}`)
	if _, err := place(t, dir, "HOME=/nowhere").Logins(); err == nil {
		t.Error("logins in this process's environment would have been used")
	}
	if v, ok := root.Env("HOME"); !ok || v != "/nowhere" {
		t.Errorf("HOME is %q", v)
	}
	if _, ok := root.Env("PATH"); ok {
		t.Error("a variable of this process was found")
	}
}
