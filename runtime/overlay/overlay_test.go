package overlay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Both ways of telling the kernel make the same mount, out of as many layers as any image has, and leave nothing.
func TestMake(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("/run", "cale-overlay-") // which the old way covers
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const layers = 127
	var lower []string
	for i := range layers {
		d := filepath.Join(dir, strings.Repeat("long", 20), fmt.Sprintf("layer,with:odd%d", i))
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"same", fmt.Sprintf("own%d", i)} {
			if err := os.WriteFile(filepath.Join(d, name), fmt.Append(nil, i), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		lower = append(lower, d)
	}
	old := func(m *Mount) (*os.File, error) { return inThread(m.attach) }
	ways := map[string]func(*Mount) (*os.File, error){"old": old, "chosen": (*Mount).Make}
	for name, make := range ways {
		t.Run(name, func(t *testing.T) {
			upper, work := filepath.Join(dir, name+"-upper"), filepath.Join(dir, name+"-work")
			for _, d := range []string{upper, work} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			f, err := make(&Mount{Lower: Paths(lower), Upper: Dir{Path: upper}, Work: Dir{Path: work}, Attrs: unix.MOUNT_ATTR_NOSUID})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			at := fmt.Sprintf("/proc/self/fd/%d/", f.Fd())
			for file, want := range map[string]string{"same": "0", "own0": "0", "own126": "126"} {
				if text, err := os.ReadFile(at + file); err != nil || string(text) != want {
					t.Errorf("%s: %q, %v", file, text, err)
				}
			}
			if err := os.WriteFile(at+"same", []byte("new"), 0o644); err != nil {
				t.Error(err)
			}
			if text, err := os.ReadFile(filepath.Join(upper, "same")); err != nil || string(text) != "new" {
				t.Errorf("upper: %q, %v", text, err)
			}
			var fs unix.Statfs_t
			if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || fs.Flags&unix.ST_NOSUID == 0 {
				t.Errorf("flags %x, %v", fs.Flags, err)
			}
			r, err := make(&Mount{Lower: Paths(lower), Attrs: unix.MOUNT_ATTR_RDONLY})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/x", r.Fd()), nil, 0o644); err == nil {
				t.Error("written to without an upper directory")
			}
		})
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), filepath.Base(dir)) {
		t.Errorf("a mount is left: %v", err)
	}
}
