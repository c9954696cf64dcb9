package images

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
)

// BusyboxPath is the static busybox that images are made of.
const BusyboxPath = "/bin/busybox"

// ErrNoBusybox says that the machine lacks a static busybox; tests skip by it.
var ErrNoBusybox = errors.New("no static /bin/busybox (Debian: busybox-static)")

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
user:x:1000:1000:user:/home/user:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
`

const group = `root:x:0:
daemon:x:1:
bin:x:2:
tty:x:5:
www-data:x:33:
users:x:100:user
user:x:1000:
extra:x:1001:user
nogroup:x:65534:
`

// system is the tree that each image has besides its programs.
func system() []File {
	return []File{
		{Name: "bin/"}, {Name: "dev/"}, {Name: "etc/"}, {Name: "home/"},
		{Name: "home/user/", UID: 1000, GID: 1000}, {Name: "root/", Mode: 0o700},
		{Name: "sbin/"}, {Name: "tmp/", Mode: 0o1777}, {Name: "usr/"}, {Name: "usr/bin/"},
		{Name: "usr/sbin/"}, {Name: "var/"}, {Name: "var/www/"}, {Name: "lib/"},
		{Name: "etc/passwd", Data: []byte(passwd)}, {Name: "etc/group", Data: []byte(group)},
		{Name: "etc/shadow", Mode: 0o600, Data: []byte("root:*:::::::\n")},
	}
}

// BusyboxFiles is busybox's tree: one binary and a link for each applet, hard
// links in the folder that busybox itself would use, and a few symbolic ones
// so that both kinds occur.
func BusyboxFiles() ([]File, error) {
	bin, err := os.ReadFile(BusyboxPath)
	if err != nil {
		return nil, ErrNoBusybox
	}
	if strings.Contains(string(bin), "/lib64/ld-linux") || strings.Contains(string(bin), "/lib/ld-linux") {
		return nil, ErrNoBusybox
	}
	list, err := exec.Command(BusyboxPath, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox --list-full: %w", err)
	}
	names := strings.Fields(string(list))
	sort.Strings(names)
	files := append(system(), File{Name: "bin/busybox", Mode: 0o755, Data: bin})
	seen := map[string]bool{"bin/busybox": true}
	for i, n := range names {
		dir := filepath.Dir(n)
		if seen[n] || (dir != "bin" && dir != "sbin" && dir != "usr/bin" && dir != "usr/sbin") {
			continue
		}
		seen[n] = true
		if i%20 == 19 {
			files = append(files, File{Name: n, Symlink: "/bin/busybox"})
			continue
		}
		files = append(files, File{Name: n, Mode: 0o755, Link: "bin/busybox"})
	}
	return files, nil
}

// Busybox makes an image of /bin/busybox; its command is sh. It fails with
// ErrNoBusybox where there is none.
func Busybox() (*Image, error) {
	files, err := BusyboxFiles()
	if err != nil {
		return nil, err
	}
	return New(Spec{Layers: [][]File{files}, Run: Run{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Cmd: []string{"sh"},
	}})
}

// Static makes an image whose command is the static binary at path; an empty
// path means the program in the folder hello, built for the purpose.
func Static(path string) (*Image, error) {
	var bin []byte
	var err error
	if path == "" {
		path = "hello"
		bin, err = hello()
	} else {
		bin, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	name := "/bin/" + filepath.Base(path)
	files := append(system(), File{Name: name[1:], Mode: 0o755, Data: bin})
	return New(Spec{Layers: [][]File{files}, Run: Run{Env: []string{"PATH=/bin"}, Cmd: []string{name}}})
}

// hello builds the program with the Go tool of whoever runs the tests.
func hello() ([]byte, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return nil, errors.New("hello: its source folder is unknown")
	}
	dir, err := os.MkdirTemp("", "hello")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "hello")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./hello")
	cmd.Dir = filepath.Dir(here)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build hello: %w: %s", err, msg)
	}
	return os.ReadFile(out)
}
