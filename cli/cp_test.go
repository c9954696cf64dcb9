package cli

import (
	"archive/tar"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The rules of cp, as Docker's manual lists them.
func TestDestination(t *testing.T) {
	for _, c := range []struct {
		src           string
		srcIsDir      bool
		dst           string
		exists, isDir bool
		want          place
		err           bool
	}{
		{"/a/f", false, "/b/g", false, false, place{"/b", "g"}, false},
		{"/a/f", false, "/b/", false, false, place{}, true},
		{"/a/f", false, "/b/g", true, false, place{"/b", "g"}, false},
		{"/a/f", false, "/b/g/", true, false, place{}, true},
		{"/a/f", false, "/b", true, true, place{"/b", "f"}, false},
		{"/a/d", true, "/b/n", false, false, place{"/b", "n"}, false},
		{"/a/d", true, "/b/n/", false, false, place{"/b", "n"}, false},
		{"/a/d", true, "/b/g", true, false, place{}, true},
		{"/a/d", true, "/b", true, true, place{"/b", "d"}, false},
		{"/a/d/.", true, "/b", true, true, place{"/b", "."}, false},
		{"/a/d/.", true, "/b/n", false, false, place{"/b", "n"}, false},
	} {
		base := filepath.Base(filepath.Clean(c.src))
		got, err := destination(c.src, base, c.srcIsDir, c.dst, c.exists, c.isDir)
		if got != c.want || (err != nil) != c.err {
			t.Errorf("%s to %s: %+v, %v", c.src, c.dst, got, err)
		}
	}
	for in, want := range map[string][2]string{"c:/x": {"c", "/x"}, "/a:b": {"", "/a:b"}, "./a:b": {"", "./a:b"}, "plain": {"", "plain"}, "-": {"", "-"}, "c:": {"c", ""}} {
		if c, p := splitContainer(in); [2]string{c, p} != want {
			t.Errorf("%s: %q %q", in, c, p)
		}
	}
}

func stat(name string, mode uint32, link string) string {
	return base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf(`{"name":%q,"mode":%d,"linkTarget":%q}`, name, mode, link)))
}

const isDir, isLink = 1 << 31, 1 << 27 // of an fs.FileMode

func TestCopy(t *testing.T) {
	var uploaded []string
	e := newEngine(t, map[string]http.HandlerFunc{
		"HEAD /containers/c/archive": func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Query().Get("path") {
			case "/dir":
				w.Header().Set("X-Docker-Container-Path-Stat", stat("dir", isDir|0o755, ""))
			case "/link":
				w.Header().Set("X-Docker-Container-Path-Stat", stat("link", isLink|0o777, "dir"))
			default:
				w.WriteHeader(404)
			}
		},
		"GET /containers/c/archive": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Docker-Container-Path-Stat", stat("f", 0o640, ""))
			tw := tar.NewWriter(w)
			tw.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o640, Size: 4})
			io.WriteString(tw, "text")
			tw.Close()
		},
		"PUT /containers/c/archive": func(w http.ResponseWriter, r *http.Request) {
			line := r.URL.Query().Get("path") + ":"
			for tr := tar.NewReader(r.Body); ; {
				h, err := tr.Next()
				if err != nil {
					break
				}
				line += " " + h.Name
			}
			uploaded = append(uploaded, line)
		},
	})
	dir := t.TempDir()
	e.cale(t, "cp", "c:/x/f", dir).check(t, 0, "", "")
	e.cale(t, "cp", "c:/x/f", dir+"/g").check(t, 0, "", "")
	for _, name := range []string{"f", "g"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != "text" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if r := e.cale(t, "cp", "c:/x/f", "-"); r.code != 0 || !strings.Contains(r.out, "text") {
		t.Errorf("%+v", r)
	}
	for _, dst := range []string{"c:/dir", "c:/link", "c:/new"} {
		e.cale(t, "cp", dir, dst).check(t, 0, "", "")
	}
	e.cale(t, "cp", dir+"/.", "c:/dir").check(t, 0, "", "")
	base := filepath.Base(dir)
	want := fmt.Sprintf("/dir: %[1]s/ %[1]s/f %[1]s/g|/dir: %[1]s/ %[1]s/f %[1]s/g|/: new/ new/f new/g|/dir: ./ f g", base)
	if got := strings.Join(uploaded, "|"); got != want {
		t.Errorf("uploaded %s\nwant     %s", got, want)
	}
	e.cale(t, "cp", "a:/x", "b:/y").check(t, 1, "", "cale: copying between containers is not supported\n")
	e.cale(t, "cp", dir, dir).check(t, 1, "", "cale: must specify at least one container source\n")
}
