package rootfs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"cale/runtime/launch"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestParseOptions(t *testing.T) {
	const atime = unix.MOUNT_ATTR__ATIME
	for _, test := range []struct {
		in   string
		want options
	}{
		{"", options{}},
		{"ro,nosuid", options{set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID, readonly: true, flags: true}},
		{"ro,rw", options{clear: unix.MOUNT_ATTR_RDONLY, flags: true}},
		{"noatime", options{set: unix.MOUNT_ATTR_NOATIME, clear: atime, flags: true, atime: true}},
		{"noatime,relatime", options{clear: atime, flags: true, atime: true}},
		{"noatime,atime", options{clear: atime, flags: true}},
		{"rnoatime", options{rset: unix.MOUNT_ATTR_NOATIME, rclear: atime}},
		{"rro", options{rset: unix.MOUNT_ATTR_RDONLY}},
		{"rbind,rshared", options{bind: true, rec: true, propagation: unix.MS_SHARED, propagationRec: true}},
		{"slave", options{propagation: unix.MS_SLAVE}},
		{"relatime", options{clear: atime, flags: true, atime: true}},
		{"size=1m,mode=755,defaults", options{data: []string{"size=1m", "mode=755"}}},
		{"sync,lazytime", options{superFlags: []string{"sync", "lazytime"}, flags: true}},
	} {
		got, err := parseOptions(strings.Split(test.in, ","))
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, %v; want %+v", test.in, got, err, test.want)
		}
	}
	if _, err := parseOptions([]string{"a\x00b"}); err == nil {
		t.Error("a NUL byte was taken")
	}
}

func TestSplitLowers(t *testing.T) {
	got, err := splitLowers(`/a:/b\:c:/d\\e`)
	if err != nil || !reflect.DeepEqual(got, []string{"/a", "/b:c", `/d\e`}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, s := range []string{"", "/a:", "/a::/b"} {
		if _, err := splitLowers(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestBindTargets(t *testing.T) {
	for dest, ok := range map[string]bool{
		"/proc": false, "/proc/cpuinfo": true, "/proc/net/dev": true, "/proc/sys": false, "/proc/self/x": false,
		"/proc/../proc/sys": false, "//proc//1": false, "/procfs/x": true, "/data": true,
	} {
		m := mount{dest: clean(dest), opts: options{bind: true}}
		m.Source = "/tmp"
		if err := (&Tree{}).checkProc(&m); (err == nil) != ok {
			t.Errorf("%s: %v", dest, err)
		}
	}
}

func tree(t *testing.T) *Tree {
	t.Helper()
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	root := os.NewFile(uintptr(fd), dir)
	t.Cleanup(func() { root.Close() })
	return &Tree{root: root, o: Options{Spec: &specs.Spec{Linux: &specs.Linux{}}, Warn: func(string) {}}}
}

func TestCanonical(t *testing.T) {
	tr := tree(t)
	dir := tr.root.Name()
	for link, target := range map[string]string{"abs": "/run/x", "rel": "run/y", "up": "../../..", "loop": "loop", "chain": "abs"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "there"), 0o755); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"there":       "there",
		"new/a":       "new/a",
		"abs/f":       "run/x/f",
		"rel":         "run/y",
		"chain/z":     "run/x/z",
		"up/etc/new":  "etc/new",
		"loop/x":      "loop/x",
		"there/../no": "no",
	} {
		if got := tr.canonical(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// The whole list for a tree can be made and printed without rights: it is data.
func TestBuildIsData(t *testing.T) {
	tr := tree(t)
	tr.roots = []source{{fd: tr.root, dir: true}}
	tr.o.Spec.Mounts = []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/x/y", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "size=1m"}}}
	for _, m := range tr.o.Spec.Mounts {
		tr.placed = len(tr.mounts)
		if err := tr.prepareMount(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.prepareDevices(); err != nil {
		t.Fatal(err)
	}
	tr.o.Spec.Linux.MaskedPaths = []string{"/proc/kcore"}
	tr.o.Spec.Linux.ReadonlyPaths = []string{"/proc/sys"}
	p := launch.New()
	tr.Build(p)
	tr.Enter(p)
	var b strings.Builder
	if err := p.Explain(&b); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"mount proc on /proc", "mount tmpfs on /x/y", "make the device /dev/null", "mask /proc/kcore", "make /proc/sys read-only", "pivot_root"} {
		if !strings.Contains(b.String(), s) {
			t.Errorf("%q is missing", s)
		}
	}
}

// Numbers that mean another device once they are cut are no device's.
func TestDeviceNumbers(t *testing.T) {
	for _, d := range []specs.LinuxDevice{{Major: -1}, {Minor: -1}, {Major: 1 << 12}, {Minor: 1 << 20}, {Major: 1<<32 + 1, Minor: 3}} {
		tr := tree(t)
		d.Path, d.Type = "/dev/x", "c"
		tr.o.Spec.Linux.Devices = []specs.LinuxDevice{d}
		if err := tr.prepareDevices(); err == nil || !strings.Contains(err.Error(), "/dev/x") {
			t.Errorf("%d:%d: %v", d.Major, d.Minor, err)
		}
	}
}

// Each mount takes steps and registers, and some have very many mounts.
func TestManyMounts(t *testing.T) {
	tr := tree(t)
	tr.roots = []source{{fd: tr.root, dir: true}}
	for i := range 2000 {
		m := specs.Mount{Destination: fmt.Sprintf("/m/%d", i), Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}}
		if err := tr.prepareMount(m); err != nil {
			t.Fatal(err)
		}
	}
	p := launch.New()
	defer p.Free()
	tr.Build(p)
	if err := p.Explain(io.Discard); err != nil {
		t.Error(err)
	}
}
