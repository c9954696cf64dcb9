// Command images makes the images that critest pulls and pushes them to a registry:
//
//	images -registry 127.0.0.1:5000 -busybox DYNAMIC -standin PROGRAM
//
// It prints the digest of the image that is pulled by digest.
package main

import (
	"context"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"cale/test/images"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
	group  = "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nusers:x:100:\nnobody:x:65534:\n"
	path   = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	tools  = "k8s-staging-cri-tools/"
)

func run() error {
	registry := flag.String("registry", "", "where to push, over plain HTTP")
	busybox := flag.String("busybox", "", "a busybox whose shell executes the other applets instead of calling them (Debian's package busybox)")
	standin := flag.String("standin", "", "the program standin")
	flag.Parse()
	if *registry == "" || *busybox == "" || *standin == "" || flag.NArg() > 0 {
		return errors.New("give -registry, -busybox and -standin")
	}
	base, err := system(*busybox)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(*standin)
	if err != nil {
		return err
	}
	file := func(name string, mode int64) []images.File {
		return []images.File{{Name: name, Mode: mode, Data: program}}
	}
	known := []images.File{{Name: "etc/passwd", Data: []byte(passwd + "default-user:x:1000:1000::/home:/bin/sh\n")},
		{Name: "etc/group", Data: []byte(group + "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")}}
	sh := func(user string) images.Run { return images.Run{Cmd: []string{"sh"}, User: user} }

	digest := ""
	for _, i := range []struct {
		name   string
		run    images.Run
		layers [][]images.File
	}{
		{"e2e-test-images/busybox:1.29-2", sh(""), [][]images.File{base}},
		{"e2e-test-images/nginx:1.14-2", images.Run{Entrypoint: []string{"/usr/sbin/nginx"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}}, [][]images.File{base, file("usr/sbin/nginx", 0o755)}},
		{"e2e-test-images/httpd:2.4.39-4", images.Run{Entrypoint: []string{"/usr/sbin/httpd"}}, [][]images.File{base, file("usr/sbin/httpd", 0o755)}},
		{"e2e-test-images/nonewprivs:1.3", images.Run{Entrypoint: []string{"/nnp"}}, [][]images.File{file("nnp", 0o4755)}},
		{tools + "hostnet-nginx-amd64:latest", images.Run{Entrypoint: []string{"/usr/sbin/nginx"}, Env: []string{path, "PORT=12003"}}, [][]images.File{base, file("usr/sbin/nginx", 0o755)}},
		{tools + "test-image-user-uid:latest", sh("1002"), [][]images.File{base}},
		{tools + "test-image-user-username:latest", sh("www-data"), [][]images.File{base}},
		{tools + "test-image-user-uid-group:latest", sh("1003:users"), [][]images.File{base}},
		{tools + "test-image-user-username-group:latest", sh("www-data:100"), [][]images.File{base}},
		{tools + "test-image-predefined-group:latest", sh("1000"), [][]images.File{base, known}},
		{tools + "test-image-latest:latest", sh(""), [][]images.File{base}},
		{tools + "test-image-tag:test", sh(""), [][]images.File{base}},
		{tools + "test-image-tag:all", images.Run{Cmd: []string{"sh"}, WorkingDir: "/home"}, [][]images.File{base}}, // another image, not another name of the one before
		{tools + "test-image-digest:latest", sh(""), [][]images.File{base}},
		{tools + "test-image-1:latest", sh(""), [][]images.File{base}}, {tools + "test-image-2:latest", sh(""), [][]images.File{base}}, {tools + "test-image-3:latest", sh(""), [][]images.File{base}},
		{tools + "test-image-tags:1", sh(""), [][]images.File{base}}, {tools + "test-image-tags:2", sh(""), [][]images.File{base}}, {tools + "test-image-tags:3", sh(""), [][]images.File{base}},
		{"pause:3.9", images.Run{Entrypoint: []string{"/pause"}}, [][]images.File{file("pause", 0o755)}},
	} {
		repo, _, _ := strings.Cut(i.name, ":")
		i.run.Labels = map[string]string{"test.name": repo} // so that images of different names have different ids
		if i.run.Env == nil {
			i.run.Env = []string{path}
		}
		img, err := images.New(images.Spec{Layers: i.layers, Run: i.run})
		if err == nil {
			err = img.Push(context.Background(), *registry, i.name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", i.name, err)
		}
		if strings.HasSuffix(repo, "test-image-digest") {
			digest = img.Manifest.Digest()
		}
	}
	fmt.Println(digest)
	return nil
}

// system is busybox's tree, every applet a hard link as in the image that critest was written for, with the shell and
// the libraries of a busybox that executes what it is told to.
func system(dynamic string) ([]images.File, error) {
	static, err := os.ReadFile(images.BusyboxPath)
	if err != nil {
		return nil, images.ErrNoBusybox
	}
	list, err := exec.Command(images.BusyboxPath, "--list").Output()
	if err != nil {
		return nil, err
	}
	var files []images.File
	for _, d := range strings.Fields("bin dev etc home lib lib64 mnt proc root run sys usr usr/bin usr/sbin var var/log") {
		files = append(files, images.File{Name: d + "/"})
	}
	files = append(files, images.File{Name: "tmp/", Mode: 0o1777}, images.File{Name: "var/run", Symlink: "/run"},
		images.File{Name: "etc/passwd", Data: []byte(passwd)}, images.File{Name: "etc/group", Data: []byte(group)},
		images.File{Name: "bin/busybox", Mode: 0o755, Data: static})
	for _, a := range strings.Fields(string(list)) {
		if a != "busybox" && a != "sh" {
			files = append(files, images.File{Name: "bin/" + a, Mode: 0o755, Link: "bin/busybox"})
		}
	}
	// Debian's busybox has neither of these.
	files = append(files,
		images.File{Name: "bin/ipcs", Mode: 0o755, Data: []byte("#!/bin/sh\nexec cat /proc/sysvipc/shm\n")},
		images.File{Name: "bin/pgrep", Mode: 0o755, Data: []byte("#!/bin/sh\nfound=1\nfor p in /proc/[0-9]*; do\n" +
			"read -r name < $p/comm 2>/dev/null || continue\ncase $name in *$1*) echo ${p#/proc/}; found=0;; esac\ndone\nexit $found\n")})
	needed, err := libraries(dynamic)
	if err != nil {
		return nil, err
	}
	for from, to := range needed {
		data, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		files = append(files, images.File{Name: to, Mode: 0o755, Data: data})
	}
	return files, nil
}

// libraries are the files of the host that a program needs, itself included, and where in an image they are to be.
func libraries(program string) (map[string]string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	defer f.Close()
	out := map[string]string{program: "bin/sh"}
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for _, s := range f.Progs {
		if s.Type == elf.PT_INTERP {
			raw := make([]byte, s.Filesz)
			if _, err := s.ReadAt(raw, 0); err != nil {
				return nil, err
			}
			loader := strings.TrimRight(string(raw), "\x00")
			out[loader] = strings.TrimPrefix(loader, "/")
		}
	}
	for _, n := range names {
		found, err := filepath.Glob("/lib/*/" + n)
		if err != nil || len(found) == 0 {
			return nil, fmt.Errorf("%s needs %s, which is not here", program, n)
		}
		out[found[0]] = "lib/" + n
	}
	return out, nil
}
