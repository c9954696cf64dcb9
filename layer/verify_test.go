package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cale/image"
)

// TestVerify damages an unpacked layer in each way that can be seen.
func TestVerify(t *testing.T) {
	raw := archive(t, e{name: "d/"}, e{name: "d/f", data: "content"}, e{name: "d/h", kind: tar.TypeLink, link: "d/f"}, e{name: "l", kind: tar.TypeSymlink, link: "d"},
		e{name: "o/.wh..wh..opq"}, e{name: ".wh.gone"}, e{name: "implied/x/y"})
	id := image.FromBytes(raw)
	ctx := context.Background()
	for name, c := range map[string]struct {
		damage func(fs string) error
		want   string // "" for none
	}{
		"nothing":           {func(string) error { return nil }, ""},
		"implied directory": {func(fs string) error { return os.Chmod(filepath.Join(fs, "implied"), 0o700) }, ""},
		"content":           {func(fs string) error { return os.WriteFile(filepath.Join(fs, "d/f"), []byte("CONTENT"), 0) }, "other content"},
		"shorter":           {func(fs string) error { return os.Truncate(filepath.Join(fs, "d/f"), 3) }, "3 bytes instead of 7"},
		"missing":           {func(fs string) error { return os.Remove(filepath.Join(fs, "l")) }, "/l: missing"},
		"missing directory": {func(fs string) error { return os.RemoveAll(filepath.Join(fs, "implied")) }, "/implied: missing"},
		"too much":          {func(fs string) error { return os.WriteFile(filepath.Join(fs, "d/new"), nil, 0) }, "/d/new is too much"},
		"mode":              {func(fs string) error { return os.Chmod(filepath.Join(fs, "d/f"), 0o4755) }, "other permissions"},
		"owner":             {func(fs string) error { return os.Lchown(filepath.Join(fs, "l"), 7, 0) }, "another owner"},
		"link": {func(fs string) error {
			return errors.Join(os.Remove(filepath.Join(fs, "l")), os.Symlink("/etc", filepath.Join(fs, "l")))
		}, "leads elsewhere"},
		"kind": {func(fs string) error {
			return errors.Join(os.Remove(filepath.Join(fs, "l")), os.Mkdir(filepath.Join(fs, "l"), 0o755))
		}, "another kind"},
		"whiteout": {func(fs string) error { return os.Remove(filepath.Join(fs, "gone")) }, "/gone: missing"},
		"opaque":   {func(fs string) error { return unix.Removexattr(filepath.Join(fs, "o"), "trusted.overlay.opaque") }, "hides what is below"},
		"xattr":    {func(fs string) error { return unix.Setxattr(filepath.Join(fs, "d"), "user.x", []byte("1"), 0) }, "extended attributes"},
		"all":      {os.RemoveAll, "its files are gone"},
	} {
		t.Run(name, func(t *testing.T) {
			l := openStore(t)
			if _, err := l.Unpack(ctx, bytes.NewReader(raw), "", id); err != nil {
				t.Fatal(err)
			}
			if err := c.damage(filepath.Join(l.path(id), "fs")); errors.Is(err, unix.ENOTSUP) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			err := l.Verify(ctx, bytes.NewReader(gz(t, raw)), id)
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if n := left(t, l); len(n) != 1 {
				t.Errorf("left: %v", n)
			}
		})
	}
}

// TestVerifyAgainstAnotherBlob: that says nothing of the layer.
func TestVerifyAgainstAnotherBlob(t *testing.T) {
	l := openStore(t)
	ctx := context.Background()
	raw := archive(t, e{name: "a"})
	id := image.FromBytes(raw)
	if _, err := l.Unpack(ctx, bytes.NewReader(raw), "", id); err != nil {
		t.Fatal(err)
	}
	if err := l.Verify(ctx, bytes.NewReader(archive(t, e{name: "b"})), id); !errors.Is(err, ErrDigest) || errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}
