package interop

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"cale/test/images"

	"golang.org/x/sys/unix"
)

// file is what a tree holds under one name.
type file struct {
	kind     byte // of tar
	mode     uint32
	uid, gid int
	time     time.Time
	size     int64
	content  string // digest of a file, target of a link, numbers of a device
	attrs    string // extended attributes
	names    string // all names of a file with several
}

// tree is a tree by name, without slashes at either end.
type tree map[string]file

// loose says what a reader of trees can't tell.
type loose struct {
	seconds bool     // times have no nanoseconds
	attrs   bool     // of the extended attributes, capabilities alone
	extra   []string // names that are its own, and what is below them
}

// same compares a tree with what it should be, entry by entry.
func same(t *testing.T, who string, got, want tree, l loose) {
	t.Helper()
	for name, w := range want {
		g, ok := got[name]
		if !ok {
			t.Errorf("%s: /%s is missing", who, name)
			continue
		}
		if l.seconds {
			g.time, w.time = g.time.Truncate(time.Second), w.time.Truncate(time.Second)
		}
		if l.attrs {
			g.attrs, w.attrs = capability(g.attrs), capability(w.attrs)
		}
		if !g.time.Equal(w.time) {
			t.Errorf("%s: /%s was changed at %v, should be %v", who, name, g.time, w.time)
		}
		g.time = w.time
		if g != w {
			t.Errorf("%s: /%s is\n%+v, should be\n%+v", who, name, g, w)
		}
	}
extra:
	for name := range got {
		if _, ok := want[name]; ok {
			continue
		}
		for _, e := range l.extra {
			if name == e || strings.HasPrefix(name, e+"/") {
				continue extra
			}
		}
		t.Errorf("%s: /%s is too much", who, name)
	}
}

func capability(attrs string) string {
	for a := range strings.SplitSeq(attrs, " ") {
		if strings.HasPrefix(a, "security.capability=") {
			return a
		}
	}
	return ""
}

func attributes(m map[string]string) string {
	var list []string
	for k, v := range m {
		list = append(list, fmt.Sprintf("%s=%x", k, v))
	}
	sort.Strings(list)
	return strings.Join(list, " ")
}

func digest(r io.Reader) string {
	h := sha256.New()
	io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil))
}

// share gives files that are one file the list of their names.
func (t tree) share(groups map[string][]string) {
	for _, names := range groups {
		if len(names) < 2 {
			continue
		}
		sort.Strings(names)
		for _, n := range names {
			f := t[n]
			f.names = strings.Join(names, " ")
			t[n] = f
		}
	}
}

// fromTar reads an archive's tree.
func fromTar(t *testing.T, r io.Reader) tree {
	t.Helper()
	out, groups := tree{}, map[string][]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Trim(strings.TrimPrefix(h.Name, "./"), "/")
		if name == "" || name == "." {
			continue
		}
		if h.Typeflag == tar.TypeLink {
			to := strings.Trim(strings.TrimPrefix(h.Linkname, "./"), "/")
			out[name] = out[to]
			groups[to] = append(groups[to], name)
			continue
		}
		f := file{kind: h.Typeflag, mode: uint32(h.Mode) & 0o7777, uid: h.Uid, gid: h.Gid, time: h.ModTime.UTC()}
		switch h.Typeflag {
		case tar.TypeReg:
			f.size, f.content = h.Size, digest(tr)
		case tar.TypeSymlink:
			f.content, f.mode = h.Linkname, 0
		case tar.TypeChar, tar.TypeBlock:
			f.content = fmt.Sprintf("%d:%d", h.Devmajor, h.Devminor)
		}
		attrs := map[string]string{}
		for k, v := range h.PAXRecords {
			if k, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				attrs[k] = v
			}
		}
		f.attrs = attributes(attrs)
		out[name] = f
		groups[name] = append(groups[name], name)
	}
	out.share(groups)
	return out
}

// fromDir reads a tree on disk.
func fromDir(t *testing.T, dir string) tree {
	t.Helper()
	out, groups := tree{}, map[string][]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		f := file{mode: st.Mode & 0o7777, uid: int(st.Uid), gid: int(st.Gid), time: time.Unix(st.Mtim.Unix()).UTC()}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			f.kind = tar.TypeDir
		case unix.S_IFREG:
			f.kind, f.size = tar.TypeReg, st.Size
			r, err := os.Open(path)
			if err != nil {
				return err
			}
			f.content = digest(r)
			r.Close()
		case unix.S_IFLNK:
			f.kind, f.mode = tar.TypeSymlink, 0
			f.content, _ = os.Readlink(path)
		case unix.S_IFIFO:
			f.kind = tar.TypeFifo
		case unix.S_IFCHR, unix.S_IFBLK:
			f.kind = tar.TypeChar
			if st.Mode&unix.S_IFMT == unix.S_IFBLK {
				f.kind = tar.TypeBlock
			}
			f.content = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		f.attrs = attributes(xattrs(path))
		out[name] = f
		if f.kind != tar.TypeDir {
			id := fmt.Sprint(st.Dev, st.Ino)
			groups[id] = append(groups[id], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	out.share(groups)
	return out
}

// xattrs are the attributes that go into images.
func xattrs(path string) map[string]string {
	out, buf := map[string]string{}, make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return out
	}
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name == "security.capability" || strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") && !strings.Contains(name, "containers") {
			v := make([]byte, 4096)
			if m, err := unix.Lgetxattr(path, name, v); err == nil {
				out[name] = string(v[:m])
			}
		}
	}
	return out
}

var (
	early = time.Date(1999, 12, 31, 23, 59, 59, 0, time.UTC)
	exact = time.Date(2020, 2, 29, 12, 30, 15, 123456789, time.UTC)
)

const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// layers are an image of everything that a layer may hold; the second one
// changes, hides and replaces what the first one has. after is what comes out.
func layers() (all [][]images.File, after []images.File) {
	big := []byte(strings.Repeat("0123456789abcdef", 20_000))
	keep := []images.File{
		{Name: "bin/", Mode: 0o755, Time: exact},
		{Name: "bin/ping", Mode: 0o755, Data: []byte("ping"), Xattrs: map[string]string{"security.capability": capNetRaw}, Time: exact},
		{Name: "bin/su", Mode: 0o4755, Data: []byte("su"), Time: early},
		{Name: "bin/wall", Mode: 0o2755, GID: 5, Data: []byte("wall"), Time: early},
		{Name: "data/", Mode: 0o2750, UID: 1000, GID: 1001, Time: exact},
		{Name: "data/big", Mode: 0o640, UID: 1000, GID: 1001, Data: big, Time: exact},
		{Name: "data/far", UID: 4_000_000_000, GID: 4_000_000_001, Mode: 0o600, Data: []byte("x"), Time: exact},
		{Name: "data/noted", Mode: 0o444, Data: []byte("n"), Xattrs: map[string]string{"user.note": "a note\x00with a zero"}, Time: exact},
		{Name: "nodes/", Time: exact},
		{Name: "nodes/blk", Type: '4', Major: 8, Minor: 1, Mode: 0o660, GID: 6, Time: exact},
		{Name: "nodes/chr", Type: '3', Major: 1, Minor: 3, Mode: 0o666, Time: exact},
		{Name: "nodes/fifo", Type: '6', Mode: 0o622, Time: exact},
		{Name: "empty/", Mode: 0o1777, Time: exact},
		{Name: "links/", Time: exact},
		{Name: "links/first", Mode: 0o600, Data: []byte("linked"), Time: exact},
		{Name: "links/second", Link: "links/first", Mode: 0o600, Time: exact},
		{Name: "links/third", Link: "links/first", Mode: 0o600, Time: exact},
		{Name: "links/up", Symlink: "../data/big", UID: 7, GID: 8, Time: exact},
		{Name: "links/away", Symlink: "/nowhere/" + strings.Repeat("long/", 30), Time: exact},
		{Name: "names/", Time: exact},
		{Name: "names/" + strings.Repeat("n", 200), Data: []byte("long"), Time: exact},
		{Name: "names/with spaces, ünïcode and \\ signs", Data: []byte("u"), Time: exact},
	}
	first := append([]images.File{
		{Name: "gone", Data: []byte("gone")},
		{Name: "kind/", Time: early}, {Name: "kind/inside", Data: []byte("i")},
		{Name: "opaque/", Time: early}, {Name: "opaque/old", Data: []byte("o")},
		{Name: "changed", Data: []byte("before"), Mode: 0o600},
	}, keep...)
	second := []images.File{
		{Name: ".wh.gone"},
		{Name: "kind", Data: []byte("a file now"), Mode: 0o604, Time: exact},
		{Name: "opaque/", Mode: 0o711, Time: exact}, {Name: "opaque/.wh..wh..opq"}, {Name: "opaque/new", Data: []byte("n"), Time: exact},
		{Name: "changed", Data: []byte("after"), Mode: 0o606, UID: 3, Time: exact},
	}
	after = append([]images.File{second[1], second[2], second[4], second[5]}, keep...)
	return [][]images.File{first, second}, after
}
