package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tree lists a folder: mode, name, and content or link.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if rel == "." {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%v %s", info.Mode(), rel)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			line += " -> " + target
		case info.Mode().IsRegular():
			b, _ := os.ReadFile(p)
			line += " " + string(b)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	must(t, os.MkdirAll(src+"/d/e", 0o755))
	must(t, os.WriteFile(src+"/f", []byte("content"), 0o640))
	must(t, os.Link(src+"/f", src+"/d/hard"))
	must(t, os.Symlink("../../up", src+"/d/rel")) // leads out, is copied as it is
	must(t, os.Symlink("/abs", src+"/abs"))
	must(t, syscall.Mkfifo(src+"/fifo", 0o600))
	must(t, os.Chmod(src+"/d/e", 0o555))
	old := time.Unix(1500000000, 0)
	must(t, os.Chtimes(src+"/f", old, old))
	must(t, os.Chtimes(src+"/d", old, old))

	for _, c := range []struct{ packed, from, to string }{{"name", "name", "other"}, {".", ".", "other"}, {"name", "name", "."}} {
		var b bytes.Buffer
		must(t, Pack(&b, src, c.packed))
		dst := t.TempDir()
		must(t, Unpack(dst, &b, Options{From: c.from, To: c.to}))
		got := filepath.Join(dst, c.to)
		if a, b := tree(t, src), tree(t, got); a != b {
			t.Errorf("%v:\n%s\nwant\n%s", c, b, a)
		}
		one, _ := os.Stat(got + "/f")
		two, _ := os.Stat(got + "/d/hard")
		if !os.SameFile(one, two) {
			t.Error("the hard link was lost")
		}
		folder, _ := os.Stat(got + "/d")
		if !one.ModTime().Equal(old) || !folder.ModTime().Equal(old) {
			t.Error("times were lost")
		}
	}
}

func TestPackOneFile(t *testing.T) {
	src := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(src, []byte("x"), 0o600))
	var b bytes.Buffer
	must(t, Pack(&b, src, "g"))
	dst := t.TempDir()
	must(t, Unpack(dst, &b, Options{From: "g", To: "h"}))
	if got := tree(t, dst); got != "-rw------- h x" {
		t.Error(got)
	}
	if err := Pack(io.Discard, src+"nope", "g"); err == nil {
		t.Error("a missing file was packed")
	}
}

// archiveOf makes a tar of entries as a hostile container could.
func archiveOf(t *testing.T, entries ...tar.Header) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		must(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			io.WriteString(w, "evil")
		}
	}
	w.Close()
	return &b
}

// Class of CVE-2018-15664 and CVE-2025-47290, from the client's side: what a
// container sends must not write outside of the folder asked for.
func TestHostileArchives(t *testing.T) {
	for _, c := range []struct {
		name    string
		from    string
		entries []tar.Header
	}{
		{"dot dot", ".", []tar.Header{{Typeflag: tar.TypeReg, Name: "../../victim"}}},
		{"absolute", ".", []tar.Header{{Typeflag: tar.TypeReg, Name: "/victim"}}},
		{"outside from", "a", []tar.Header{{Typeflag: tar.TypeReg, Name: "b"}}},
		{"dot dot after from", "a", []tar.Header{{Typeflag: tar.TypeReg, Name: "a/../../victim"}}},
		{"through absolute link", ".", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "OUTSIDE"}, {Typeflag: tar.TypeReg, Name: "l/victim"}}},
		{"through relative link", ".", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../outside"}, {Typeflag: tar.TypeReg, Name: "l/victim"}}},
		{"over a link", ".", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "OUTSIDE/victim"}, {Typeflag: tar.TypeReg, Name: "l"}}},
		{"hard link out", ".", []tar.Header{{Typeflag: tar.TypeLink, Name: "l", Linkname: "../outside/victim"}, {Typeflag: tar.TypeReg, Name: "l"}}},
		{"hard link to link", ".", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "s", Linkname: "OUTSIDE/victim"}, {Typeflag: tar.TypeLink, Name: "l", Linkname: "s"},
			{Typeflag: tar.TypeReg, Name: "l"}}},
		{"folder over link", ".", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "OUTSIDE"}, {Typeflag: tar.TypeDir, Name: "l", Mode: 0o777}}},
		{"odd type", ".", []tar.Header{{Typeflag: 'Z', Name: "z"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			outside, dst := filepath.Join(top, "outside"), filepath.Join(top, "dst")
			must(t, os.Mkdir(outside, 0o755))
			must(t, os.Mkdir(dst, 0o755))
			must(t, os.WriteFile(outside+"/victim", []byte("safe"), 0o600))
			for i := range c.entries {
				c.entries[i].Linkname = strings.ReplaceAll(c.entries[i].Linkname, "OUTSIDE", outside)
			}
			err := Unpack(dst, archiveOf(t, c.entries...), Options{From: c.from, To: "."})
			t.Log("error:", err)
			os.RemoveAll(dst)
			if got := tree(t, top); got != "-rw------- outside/victim safe\ndrwxr-xr-x outside" {
				t.Errorf("outside was changed:\n%s", got)
			}
		})
	}
}

// TestBorrowedRights: what a container's root or user made of a file gives nobody rights on this machine.
func TestBorrowedRights(t *testing.T) {
	for _, owner := range []bool{false, true} {
		dst := t.TempDir()
		o := Options{From: ".", To: ".", Owner: owner && os.Geteuid() == 0}
		must(t, Unpack(dst, archiveOf(t, tar.Header{Typeflag: tar.TypeReg, Name: "su", Mode: 0o6755, Uid: 1000, Gid: 1000}), o))
		st, err := os.Stat(dst + "/su")
		must(t, err)
		if borrowed := st.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0; borrowed != o.Owner {
			t.Errorf("owners kept %v: %v", o.Owner, st.Mode())
		}
		if os.Geteuid() != 0 {
			continue
		}
		must(t, Unpack(dst, archiveOf(t, tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3, Uid: 1000, Gid: 1000}), o))
		st, err = os.Stat(dst + "/null")
		must(t, err)
		if st.Mode().Perm() != 0o600 || st.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("owners kept %v: a device of %v, %v", o.Owner, st.Sys().(*syscall.Stat_t).Uid, st.Mode())
		}
	}
}

func TestKinds(t *testing.T) {
	dst := t.TempDir()
	must(t, os.Mkdir(dst+"/dir", 0o755))
	must(t, os.WriteFile(dst+"/file", nil, 0o600))
	if err := Unpack(dst, archiveOf(t, tar.Header{Typeflag: tar.TypeReg, Name: "dir"}), Options{From: ".", To: "."}); err == nil {
		t.Error("a file took a folder's place")
	}
	if err := Unpack(dst, archiveOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "file"}), Options{From: ".", To: "."}); err == nil {
		t.Error("a folder took a file's place")
	}
	// Parents that the archive leaves out are made.
	must(t, Unpack(dst, archiveOf(t, tar.Header{Typeflag: tar.TypeReg, Name: "p/q/f"}), Options{From: ".", To: "."}))
	// A folder without the right to write is filled first.
	must(t, Unpack(dst, archiveOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "ro", Mode: 0o500}, tar.Header{Typeflag: tar.TypeReg, Name: "ro/f"}), Options{From: ".", To: "."}))
	if st, err := os.Stat(dst + "/ro"); err != nil || st.Mode().Perm() != 0o500 {
		t.Errorf("%v, %v", st, err)
	}
	if err := Unpack(dst, strings.NewReader("no tar, but long enough to be read as a block of one "+strings.Repeat("x", 600)), Options{From: ".", To: "."}); err == nil {
		t.Error("garbage was taken")
	}
}
