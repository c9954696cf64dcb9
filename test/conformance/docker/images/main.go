// Command images makes the images that Docker's suites want, as a tar that docker load reads: stand-ins made of busybox
// and of this machine's own programs, as the public ones can't be had where there is no network.
//
//	images moby|moby-cli|docker-cli|compose FILE.tar
//
// Beside the tar it writes fill, a script that pushes the images to the registry at 127.0.0.1:5000 under the names that
// they have at Docker Hub, and registry.yml, that registry's configuration.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"cale/test/images"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: images moby|moby-cli|docker-cli|compose FILE.tar")
	}
	s := &set{}
	make := frozen
	if args[0] == "docker-cli" || args[0] == "compose" {
		make = hub
	}
	if err := make(s); err != nil {
		return err
	}
	if err := s.write(args[1]); err != nil {
		return err
	}
	dir := filepath.Dir(args[1])
	config := "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: " + filepath.Join(dir, "registry") + "\n  delete:\n    enabled: true\nhttp:\n  addr: :5000\n"
	if err := os.WriteFile(filepath.Join(dir, "registry.yml"), []byte(config), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "fill"), []byte(s.fill()), 0o755)
}

// entry is one image of the tar's manifest.json.
type entry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

type set struct {
	entries []entry
	files   []images.File
	have    map[string]bool
	others  []string // tags that the registry has for another platform too, under the same tag with -other behind it
}

// process is what an image's configuration says.
type process struct {
	Env          []string            `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// add puts an image of one layer into the set. arch may have a variant behind a slash.
func (s *set) add(tags []string, arch string, files []images.File, p process) error {
	layer, err := images.Tar(files)
	if err != nil {
		return err
	}
	if p.Env == nil {
		p.Env = []string{defaultPath}
	}
	arch, variant, _ := strings.Cut(arch, "/")
	config, err := json.Marshal(map[string]any{
		"architecture": arch, "variant": variant, "os": "linux", "created": "2026-01-01T00:00:00Z", "config": p,
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}},
		"history": []any{map[string]string{"created": "2026-01-01T00:00:00Z", "created_by": "made for " + tags[0]}},
	})
	if err != nil {
		return err
	}
	e := entry{Config: sum(config) + ".json", RepoTags: tags, Layers: []string{sum(layer) + "/layer.tar"}}
	s.file(e.Config, config)
	s.file(e.Layers[0], layer)
	s.entries = append(s.entries, e)
	return nil
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func (s *set) file(name string, data []byte) {
	if s.have == nil {
		s.have = map[string]bool{}
	}
	if !s.have[name] {
		s.have[name] = true
		s.files = append(s.files, images.File{Name: name, Data: data})
	}
}

func (s *set) write(path string) error {
	manifest, err := json.Marshal(s.entries)
	if err != nil {
		return err
	}
	s.file("manifest.json", manifest)
	raw, err := images.Tar(s.files)
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o644)
}

// fill writes the script that brings the images to the registry.
func (s *set) fill() string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\nset -eu\nuntil curl -fs 127.0.0.1:5000/v2/ >/dev/null; do sleep 0.1; done\n")
	for _, e := range s.entries {
		for _, tag := range e.RepoTags {
			to := tag
			switch {
			case strings.HasPrefix(tag, "registry:5000/"):
				to = strings.TrimPrefix(tag, "registry:5000/")
			case !strings.Contains(tag, "/"):
				to = "library/" + tag
			}
			fmt.Fprintf(&b, "docker tag %[1]s 127.0.0.1:5000/%[2]s\ndocker push -q 127.0.0.1:5000/%[2]s >/dev/null\ndocker rmi 127.0.0.1:5000/%[2]s >/dev/null\n", tag, to)
		}
	}
	if len(s.others) > 0 {
		b.WriteString("docker buildx version >/dev/null 2>&1 || exit 0\n")
	}
	for _, tag := range s.others {
		fmt.Fprintf(&b, "docker buildx imagetools create -t %[1]s %[1]s %[1]s-other >/dev/null 2>&1\n", "127.0.0.1:5000/library/"+tag)
	}
	return b.String()
}

// frozen is what moby's suites call their frozen images.
func frozen(s *set) error {
	busybox, err := tree()
	if err != nil {
		return err
	}
	greeting, err := hello()
	if err != nil {
		return err
	}
	debian, err := hostPrograms("bash", "unshare", "findmnt", "mount", "umount", "whoami", "id", "ls", "cat", "sleep", "top", "ps", "sh", "grep", "mkdir",
		"touch", "env", "true", "false", "echo", "stat", "chmod", "chown", "su", "setpriv", "head")
	if err != nil {
		return err
	}
	arch := runtime.GOARCH
	program := func(data string) []images.File {
		return []images.File{{Name: "hello", Mode: 0o755, Data: []byte(data)}}
	}
	for _, i := range []struct {
		tag, arch string
		files     []images.File
		cmd       string
	}{
		{"busybox:latest", arch, busybox, "sh"},
		{"busybox:glibc", arch, append(busybox[:len(busybox):len(busybox)], images.File{Name: "etc/glibc", Data: []byte("glibc\n")}), "sh"},
		{"hello-world:frozen", arch, program(string(greeting)), "/hello"},
		{"hello-world:amd64", "amd64", append(program(string(greeting)), images.File{Name: "amd64"}), "/hello"},
		{"hello-world:arm64", "arm64/v8", program("of another architecture"), "/hello"},
		{"arm32v7/hello-world:latest", "arm/v7", program("of a third one"), "/hello"},
		{"debian:trixie-slim", arch, debian, "bash"},
	} {
		if err := s.add([]string{i.tag}, i.arch, i.files, process{Cmd: []string{i.cmd}}); err != nil {
			return err
		}
	}
	return nil
}

// hub is what the suites of docker's client and of Compose take from Docker Hub.
func hub(s *set) error {
	busybox, err := tree()
	if err != nil {
		return err
	}
	busybox = append(busybox, images.File{Name: "bin/printenv", Mode: 0o755, Data: []byte(printenv)}, images.File{Name: "run/"},
		images.File{Name: "var/run", Symlink: "/run"}, images.File{Name: "usr/local/"}, images.File{Name: "usr/local/bin/"})
	with := func(more ...images.File) []images.File { return append(busybox[:len(busybox):len(busybox)], more...) }
	arch := runtime.GOARCH
	curl := images.File{Name: "usr/bin/curl", Mode: 0o755, Data: []byte("#!/bin/sh\nfor a; do case $a in -*) ;; *) u=$a;; esac; done\nexec wget -qO- \"$u\"\n")}
	passOn := []byte("#!/bin/sh\nexec \"$@\"\n")
	ash := []byte("#!/bin/sh\nexec /bin/ash \"$@\"\n")
	for _, v := range []string{"latest", "3.12", "3.13.12", "3.14", "3.15", "3.18", "3.19", "3.20", "3.22"} {
		tags := []string{"alpine:" + v}
		if v == "latest" {
			tags = append(tags, "registry:5000/alpine:frozen", "alpine/curl:latest", "mariadb:latest", "debian:latest")
		}
		files := with(curl, images.File{Name: "etc/alpine-release", Data: []byte(v + "\n")}, images.File{Name: "usr/bin/env", Mode: 0o755, Link: "bin/busybox"},
			images.File{Name: "etc/os-release", Data: []byte("NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.20.0\nPRETTY_NAME=\"Alpine Linux v3.20\"\n")})
		if err := s.add(tags, arch, files, process{Cmd: []string{"/bin/sh"}}); err != nil {
			return err
		}
	}
	other := "arm64/v8"
	if arch == "arm64" {
		other = "amd64"
	}
	for _, tag := range []string{"alpine:3.19", "alpine:3.20", "alpine:3.22"} {
		s.others = append(s.others, tag)
		if err := s.add([]string{tag + "-other"}, other, []images.File{{Name: "bin/"}, {Name: "bin/sh", Mode: 0o755}}, process{Cmd: []string{"/bin/sh"}}); err != nil {
			return err
		}
	}
	greeting, err := hello()
	if err != nil {
		return err
	}
	server := []byte("#!/bin/sh\n[ \"$1\" = -t ] && exit 0\nmkdir -p /var/log/nginx\ntrap 'exit 0' TERM QUIT INT\nhttpd -f -p 80 -h /usr/share/nginx/html &\nwait\n")
	page := []byte("<!DOCTYPE html><html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n")
	nginx := func(more ...images.File) []images.File {
		return append(with(images.File{Name: "usr/share/"}, images.File{Name: "usr/share/nginx/"}, images.File{Name: "usr/share/nginx/html/"},
			images.File{Name: "usr/share/nginx/html/index.html", Data: page}, curl, images.File{Name: "usr/sbin/nginx", Mode: 0o755, Data: server},
			images.File{Name: "bin/bash", Mode: 0o755, Data: ash}, images.File{Name: "docker-entrypoint.sh", Mode: 0o755, Data: passOn},
			images.File{Name: "etc/nginx/"}, images.File{Name: "etc/nginx/conf.d/"}), more...)
	}
	web := process{Entrypoint: []string{"/docker-entrypoint.sh"}, Cmd: []string{"nginx", "-g", "daemon off;"}, StopSignal: "SIGQUIT", ExposedPorts: map[string]struct{}{"80/tcp": {}}}
	word := []images.File{{Name: "usr/share/nginx/html/words/"}, {Name: "usr/share/nginx/html/words/noun", Data: []byte("{\"word\":\"cat\"}\n")}}
	registry, err := hostPrograms("docker-registry")
	if err != nil {
		return err
	}
	config := "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: /var/lib/registry\n  delete:\n    enabled: true\nhttp:\n  addr: :5000\n"
	registry = append(with(registry...), images.File{Name: "etc/distribution/"}, images.File{Name: "etc/distribution/config.yml", Data: []byte(config)},
		images.File{Name: "entrypoint.sh", Mode: 0o755, Data: []byte("#!/bin/sh\nexec docker-registry \"$@\"\n")}, images.File{Name: "var/lib/"}, images.File{Name: "var/lib/registry/"})
	for _, i := range []struct {
		tags  []string
		files []images.File
		p     process
	}{
		{[]string{"busybox:latest", "registry:5000/busybox:frozen"}, busybox, process{Cmd: []string{"sh"}}},
		{[]string{"busybox:1.35.0"}, with(images.File{Name: "etc/version", Data: []byte("1.35")}), process{Cmd: []string{"sh"}}},
		{[]string{"bash:latest"}, with(images.File{Name: "usr/local/bin/bash", Mode: 0o755, Data: ash},
			images.File{Name: "usr/local/bin/docker-entrypoint.sh", Mode: 0o755, Data: passOn}), process{Entrypoint: []string{"docker-entrypoint.sh"}, Cmd: []string{"bash"}}},
		{[]string{"nginx:latest"}, nginx(), web},
		{[]string{"nginx:alpine"}, nginx(images.File{Name: "etc/nginx/alpine"}), web},
		{[]string{"gtardif/sentences-web:latest"}, nginx(append(word, images.File{Name: "dispatcher", Mode: 0o755, Data: server})...),
			process{Cmd: []string{"/dispatcher"}, ExposedPorts: web.ExposedPorts}},
		{[]string{"gtardif/sentences-api:latest"}, nginx(images.File{Name: "usr/bin/java", Mode: 0o755, Data: server}),
			process{Cmd: []string{"java", "-Xmx8m", "-Xms8m", "-jar", "/app/words.jar"}, ExposedPorts: map[string]struct{}{"8080/tcp": {}}}},
		{[]string{"gtardif/sentences-db:latest"}, nginx(append(word, images.File{Name: "db"})...), web},
		{[]string{"hello-world:latest"}, []images.File{{Name: "hello", Mode: 0o755, Data: greeting}}, process{Cmd: []string{"/hello"}}},
		{[]string{"registry:3", "registry:2", "registry:latest"}, registry, process{Entrypoint: []string{"/entrypoint.sh"}, Cmd: []string{"serve", "/etc/distribution/config.yml"},
			ExposedPorts: map[string]struct{}{"5000/tcp": {}}, Volumes: map[string]struct{}{"/var/lib/registry": {}}}},
	} {
		if err := s.add(i.tags, arch, i.files, i.p); err != nil {
			return err
		}
	}
	return nil
}

// tree is busybox as the suites know it: everything in /bin, as hard links, and a few folders with owners of their own.
func tree() ([]images.File, error) {
	bin, err := os.ReadFile(images.BusyboxPath)
	if err != nil {
		return nil, images.ErrNoBusybox
	}
	list, err := exec.Command(images.BusyboxPath, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox --list: %w", err)
	}
	files := []images.File{{Name: "bin/"}, {Name: "bin/busybox", Mode: 0o755, Data: bin}}
	for _, n := range strings.Fields(string(list)) {
		// Those two want programs that busybox's own are too small for; see below.
		if n != "busybox" && n != "adduser" && n != "addgroup" {
			files = append(files, images.File{Name: "bin/" + n, Mode: 0o755, Link: "bin/busybox"})
		}
	}
	return append(files, images.File{Name: "bin/adduser", Mode: 0o755, Data: []byte(adduser)}, images.File{Name: "bin/addgroup", Mode: 0o755, Data: []byte(addgroup)},
		images.File{Name: "dev/"}, images.File{Name: "etc/"}, images.File{Name: "etc/passwd", Data: []byte(passwd)}, images.File{Name: "etc/group", Data: []byte(group)},
		images.File{Name: "etc/shadow", Mode: 0o640, Data: []byte("root:*:::::::\n")}, images.File{Name: "home/", UID: 65534, GID: 65534}, images.File{Name: "root/", Mode: 0o700},
		images.File{Name: "tmp/", Mode: 0o1777}, images.File{Name: "usr/"}, images.File{Name: "usr/bin/"}, images.File{Name: "usr/sbin/", UID: 1, GID: 1}, images.File{Name: "var/"},
		images.File{Name: "var/spool/"}, images.File{Name: "var/spool/mail/", UID: 8, GID: 8}, images.File{Name: "var/www/"}, images.File{Name: "lib/"}, images.File{Name: "lib64/"}), nil
}

// hostPrograms are programs of this machine with the libraries that they need, as a tree.
func hostPrograms(names ...string) ([]images.File, error) {
	dirs := map[string]bool{}
	var files []images.File
	put := func(path string) error {
		if dirs[path] {
			return nil
		}
		dirs[path] = true
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files = append(files, images.File{Name: strings.TrimPrefix(path, "/"), Mode: 0o755, Data: data})
		return nil
	}
	for _, n := range names {
		path, err := exec.LookPath(n)
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, images.File{Name: "bin/" + n, Mode: 0o755, Data: data})
		out, _ := exec.Command("ldd", path).Output() // a static one needs none
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "/") {
				if err := put(word); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, f := range []string{"/etc/passwd", "/etc/group", "/etc/os-release"} {
		if err := put(f); err != nil {
			return nil, err
		}
	}
	return append([]images.File{{Name: "bin/"}, {Name: "tmp/", Mode: 0o1777}, {Name: "root/", Mode: 0o700}, {Name: "proc/"}, {Name: "sys/"}, {Name: "dev/"}}, files...), nil
}

// hello is the greeting program, built for the purpose.
func hello() ([]byte, error) {
	dir, err := os.MkdirTemp("", "hello")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "hello.go")
	if err := os.WriteFile(path, []byte(greeting), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "hello"), path)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build hello: %w\n%s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "hello"))
}
