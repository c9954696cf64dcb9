package layer

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cale/filetree"
)

// TestSettle: what overlayfs copied up for nothing goes, and nothing else.
func TestSettle(t *testing.T) {
	upper, lower := t.TempDir(), t.TempDir()
	old := time.Unix(1e9, 0)
	for _, d := range []string{"etc", "a/b/c", "changed", "filled", "hidden"} {
		for _, root := range []string{upper, lower} {
			if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, err := range []error{
		os.Chmod(filepath.Join(upper, "changed"), 0o700), os.Mkdir(filepath.Join(upper, "new"), 0o755),
		os.WriteFile(filepath.Join(upper, "filled", "file"), []byte("12345"), 0o644),
		os.Link(filepath.Join(upper, "filled", "file"), filepath.Join(upper, "filled", "link")),
		os.Chtimes(filepath.Join(upper, "filled"), old, old), os.Chtimes(upper, old, old),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(upper, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := filetree.Open(upper)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	w, err := filetree.Open(lower)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	got, err := Settle(context.Background(), u, []*filetree.Root{w})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Settled{Bytes: 5, Files: 5}); got != want {
		t.Errorf("it holds %+v, not %+v", got, want)
	}
	for name, there := range map[string]bool{"etc": false, "a": false, "hidden": false, "changed": true, "new": true, "filled/link": true, "s": false} {
		if _, err := os.Lstat(filepath.Join(upper, name)); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
	}
	if fi, err := os.Stat(filepath.Join(upper, "filled")); err != nil || !fi.ModTime().Equal(old) {
		t.Errorf("the time of a directory that stays: %v, %v", fi, err)
	}
}
