package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestBadRecords: PAX records that lie about themselves, or hold what no file has, are refused or do nothing.
func TestBadRecords(t *testing.T) {
	long := strings.Repeat("v", 200_000)
	for name, c := range map[string]struct {
		records string
		refused bool
		want    string // the tree
	}{
		"NoLength":           {"a=b\n", true, ""},
		"LengthTooLong":      {"99 path=x\n", true, ""},
		"LengthTooShort":     {"5 path=x\n", true, ""},
		"LengthNegative":     {"-10 path=x\n", true, ""},
		"LengthHuge":         {"99999999999999999999 path=x\n", true, ""},
		"LengthPlus":         {"+10 path=x\n", true, ""},
		"NoNewline":          {"9 path=xx", true, ""},
		"NoEquals":           {record("path"), true, ""},
		"ZeroInName":         {record("path=a\x00b"), true, ""},
		"NameOut":            {record("path=../outside/victim"), true, ""},
		"NameOfRoot":         {record("path=/"), true, ""},
		"NameTooLong":        {record("path=" + strings.Repeat("n/", 3000)), true, ""},
		"SizeNegative":       {record("size=-1"), true, ""},
		"SizeOfNothing":      {record("size=99999999999"), true, "f"},
		"OwnerWraps":         {record("uid=4294967296"), true, "f"},
		"OwnerNoChange":      {record("gid=4294967295"), true, "f"},
		"OwnerNegative":      {record("uid=-1"), true, "f"},
		"OwnerNoNumber":      {record("uid=1000x"), true, ""},
		"TimeNoNumber":       {record("mtime=now"), true, ""},
		"TimeFar":            {record("mtime=99999999999999999999"), true, ""},
		"AttributeNoName":    {record("SCHILY.xattr.=v"), false, "f"},
		"AttributeOfOverlay": {record("SCHILY.xattr.trusted.overlay.redirect=/etc"), false, "f"},
		"AttributeOfHost":    {record("SCHILY.xattr.security.ima=x"), false, "f"},
		"CapabilityGarbage":  {record("SCHILY.xattr.security.capability=x"), true, "f"},
		"AttributeTooLarge":  {record("SCHILY.xattr.user.x=" + long), true, "f"},
		"LinkIgnored":        {record("linkpath=../outside/victim"), false, "f"},
		"SparseBackwards":    {record("GNU.sparse.major=0") + record("GNU.sparse.minor=1") + record("GNU.sparse.map=10,5,3,2") + record("GNU.sparse.size=20"), true, ""},
		"SparseNegative":     {record("GNU.sparse.major=0") + record("GNU.sparse.minor=1") + record("GNU.sparse.map=-5,5") + record("GNU.sparse.size=20"), true, ""},
		"Unknown":            {record("COMMENT.of=somebody") + record("comment="+long), false, "f"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, root := tree(t)
			raw := append(header(t, "x", tar.TypeXHeader, len(c.records)), c.records...)
			raw = append(raw, make([]byte, (512-len(raw)%512)%512)...)
			raw = append(append(raw, header(t, "f", tar.TypeReg, 0)...), make([]byte, 1024)...)
			_, err := Extract(context.Background(), root, bytes.NewReader(raw), ExtractOptions{Layer: true})
			if c.refused != (err != nil) {
				t.Errorf("refused %v, error %v", c.refused, err)
			}
			if got := list(t, root); got != c.want {
				t.Errorf("tree is %q, want %q", got, c.want)
			}
			if b, _ := os.ReadFile(filepath.Join(dir, "outside/victim")); string(b) != "untouched" {
				t.Errorf("the victim holds %q", b)
			}
		})
	}
}

// record is a PAX record, its own length in front.
func record(s string) string {
	for n := len(s) + 2; ; n++ {
		if r := strconv.Itoa(n) + " " + s + "\n"; len(r) == n {
			return r
		}
	}
}

// header is one block of a ustar archive.
func header(t *testing.T, name string, kind byte, size int) []byte {
	t.Helper()
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
	copy(h[148:], octal(sum))
	return h
}

// TestLongNames: names of GNU's and PAX's long forms that go on without end are refused before they fill the memory.
func TestLongNames(t *testing.T) {
	for _, kind := range []byte{tar.TypeGNULongName, tar.TypeGNULongLink, tar.TypeXHeader, tar.TypeXGlobalHeader} {
		_, root := tree(t)
		h := header(t, "././@LongLink", kind, 1<<32-1)
		grown := heap(func() {
			if _, err := Extract(context.Background(), root, io.MultiReader(bytes.NewReader(h), zeros{}), ExtractOptions{Layer: true}); err == nil {
				t.Errorf("%q was accepted", kind)
			}
		})
		if grown > 16<<20 {
			t.Errorf("%q: the heap grew by %d MiB", kind, grown>>20)
		}
	}
}
