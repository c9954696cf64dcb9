package landlock

import (
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	r, err := Parse("read=/ write=/tmp connect=443 bind=none scope=signal")
	if err != nil {
		t.Fatal(err)
	}
	want := &Rules{Paths: []Path{{"/", false}, {"/tmp", true}}, Ports: []Port{{443, unix.LANDLOCK_ACCESS_NET_CONNECT_TCP}},
		files: true, bind: true, connect: true, scoped: unix.LANDLOCK_SCOPE_SIGNAL}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{"", "read=tmp", "read", "bind=65536", "bind=", "connect=-1", "scope=x", "exec=/", "read=/a write", "read=/a\x00"} {
		if _, err := Parse(bad); err == nil || !strings.Contains(err.Error(), Annotation) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What a kernel can't do is an error that names it and what it needs; what it doesn't know isn't asked of it.
func TestAttr(t *testing.T) {
	files, _ := Parse("read=/")
	a, err := files.Attr(1)
	if err != nil || a.Files != 0x1fff || a.Size(1) != 8 {
		t.Errorf("%+v, %v", a, err)
	}
	if a, _ := files.Attr(7); a.Files != 0xffff || a.Size(7) != 24 {
		t.Errorf("%+v", a)
	}
	dir, file := a.Access(Path{"/", false})
	if dir != readRights || file != unix.LANDLOCK_ACCESS_FS_EXECUTE|unix.LANDLOCK_ACCESS_FS_READ_FILE {
		t.Errorf("%x, %x", dir, file)
	}
	for text, needs := range map[string]string{"connect=1": "6.7", "scope=signal": "6.12"} {
		r, _ := Parse(text)
		if _, err := r.Attr(3); err == nil || !strings.Contains(err.Error(), needs) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("read=/ write=/tmp bind=80 connect=none scope=abstract")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		for _, p := range r.Paths {
			if !strings.HasPrefix(p.Path, "/") || strings.ContainsRune(p.Path, 0) {
				t.Errorf("path %q", p.Path)
			}
		}
		_, _ = r.Attr(1)
	})
}
