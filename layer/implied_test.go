package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cale/image"
)

// TestImpliedDirectories: a layer with tmp/x and without tmp must not take the
// sticky bit from the /tmp below it.
func TestImpliedDirectories(t *testing.T) {
	l := openStore(t)
	var ids []image.Digest
	for _, entries := range [][]e{
		{{name: "tmp/", mode: 0o1777, uid: 5}, {name: "a/", mode: 0o700}, {name: "a/b/", mode: 0o710}, {name: "file"}, {name: "gone/", mode: 0o711}, {name: "opq/", mode: 0o711}, {name: "opq/d/", mode: 0o711}},
		{{name: ".wh.gone"}, {name: "opq/"}, {name: "opq/.wh..wh..opq"}, {name: "tmp/y"}},
		{{name: "tmp/x"}, {name: "a/b/c/d"}, {name: "file/now/a/dir"}, {name: "gone/x"}, {name: "opq/d/x"}, {name: "late/x"}, {name: "late/", mode: 0o750},
			{name: "l", kind: tar.TypeSymlink, link: "a"}, {name: "l/via"}},
	} {
		raw := archive(t, entries...)
		ids = append(ids, image.FromBytes(raw))
		if _, err := l.Unpack(context.Background(), bytes.NewReader(raw), "", ids[len(ids)-1]); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Open(l.dir) // also by a process that did not unpack them
	if err != nil {
		t.Fatal(err)
	}
	lower, err := again.Lower(ids)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct{ mode, uid uint32 }{
		"tmp": {0o1777, 5}, "a": {0o700, 0}, "a/b": {0o710, 0}, "a/b/c": {0o755, 0}, "file": {0o755, 0}, "gone": {0o755, 0},
		"opq": {0o755, 0}, "opq/d": {0o755, 0}, "late": {0o750, 0},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(lower[0], name), &st); err != nil || st.Mode&0o7777 != want.mode || st.Uid != want.uid {
			t.Errorf("%s is %o of %d, want %o of %d (%v)", name, st.Mode&0o7777, st.Uid, want.mode, want.uid, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(lower[0], "tmp"), &st); err != nil || st.Mtim.Sec != when.Unix() {
		t.Errorf("tmp was changed at %d", st.Mtim.Sec)
	}
}
