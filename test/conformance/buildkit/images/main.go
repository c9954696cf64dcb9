// Command images makes the images that BuildKit's tests want and pushes them to
// a registry: stand-ins made of busybox, as the public ones can't be had where
// there is no network.
//
//	images HOST:PORT
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
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
	if len(args) != 1 {
		return errors.New("usage: images HOST:PORT")
	}
	out, err := exec.Command(images.BusyboxPath, "--list").Output()
	if err != nil {
		return err
	}
	applets := strings.Fields(string(out))
	bin, err := os.ReadFile(images.BusyboxPath)
	if err != nil {
		return err
	}
	for _, i := range []struct {
		tree  []images.File
		cmd   string
		names []string
	}{
		{busybox(bin, applets), "sh", []string{
			"library/busybox:latest", "library/busybox:stable-musl", "libpod/busybox:latest", "busybox:latest", "amd64/debian:bullseye-20230109-slim",
			"cpuguy83/buildkit-foreign:latest", "tonistiigi/hellofs:latest", "libpod/centos:7", "libpod/ubuntu:latest",
		}},
		{alpine(bin, applets), "/bin/sh", []string{"library/alpine:latest", "alpine:latest"}},
		{nil, "", []string{"tonistiigi/test:nolayers"}},
	} {
		s := images.Spec{}
		if i.tree != nil {
			s.Layers = [][]images.File{i.tree}
			s.Run = images.Run{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Cmd: []string{i.cmd}}
		}
		img, err := images.New(s)
		if err != nil {
			return err
		}
		for _, n := range i.names {
			if err := img.Push(context.Background(), args[0], n); err != nil {
				return fmt.Errorf("%s: %w", n, err)
			}
		}
	}
	return nil
}

// base is what both trees have; the tests look at some of these owners and
// modes.
func base(bin []byte) []images.File {
	var out []images.File
	for _, d := range []string{"bin", "dev", "etc", "home", "lib", "usr", "usr/bin", "usr/sbin", "var", "var/spool", "var/spool/mail", "var/www", "sbin"} {
		out = append(out, images.File{Name: d + "/"})
	}
	return append(out,
		images.File{Name: "root/", Mode: 0o700}, images.File{Name: "tmp/", Mode: 0o1777},
		images.File{Name: "bin/busybox", Mode: 0o755, Data: bin},
		images.File{Name: "etc/passwd", Data: []byte(passwd)}, images.File{Name: "etc/shadow", Data: []byte("root:*:::::::\nnobody:*:::::::\n")},
		images.File{Name: "etc/nsswitch.conf", Data: []byte("hosts: files dns\n")},
		// Debian's busybox has neither of them.
		images.File{Name: "bin/addgroup", Mode: 0o755, Data: []byte(addgroup)}, images.File{Name: "bin/adduser", Mode: 0o755, Data: []byte(adduser)})
}

func busybox(bin []byte, applets []string) []images.File {
	out := append(base(bin), images.File{Name: "etc/group", Data: []byte(busyboxGroup)})
	for _, a := range applets {
		if a != "busybox" && a != "adduser" && a != "addgroup" {
			out = append(out, images.File{Name: "bin/" + a, Link: "bin/busybox"})
		}
	}
	return append(out, images.File{Name: "usr/bin/env", Link: "bin/busybox"})
}

func alpine(bin []byte, applets []string) []images.File {
	out := base(bin)
	for _, d := range []string{"media", "mnt", "opt", "proc", "run", "srv", "sys", "usr/local", "usr/local/bin", "usr/lib", "usr/share", "var/lib", "etc/apk"} {
		out = append(out, images.File{Name: d + "/"})
	}
	for _, a := range applets {
		if a != "busybox" && a != "adduser" && a != "addgroup" {
			out = append(out, images.File{Name: "bin/" + a, Symlink: "/bin/busybox"})
		}
	}
	return append(out, images.File{Name: "usr/bin/env", Symlink: "/bin/busybox"},
		images.File{Name: "etc/group", Data: []byte(alpineGroup)},
		images.File{Name: "sbin/apk", Mode: 0o755, Data: []byte("#!/bin/sh\necho 'apk: this is a stand-in' >&2\nexit 1\n")},
		images.File{Name: "etc/ssl/certs/"},
		images.File{Name: "etc/ssl/certs/ca-certificates.crt", Data: []byte("# no certificate\n")},
		images.File{Name: "etc/alpine-release", Data: []byte("3.18.6\n")},
		images.File{Name: "etc/os-release", Data: []byte("NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.18.6\n")})
}

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`

const busyboxGroup = `root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
wheel:x:10:root
cdrom:x:11:
audio:x:29:
www-data:x:33:
operator:x:37:
users:x:100:
nobody:x:65534:
`

const alpineGroup = `root:x:0:root
bin:x:1:root,bin,daemon
daemon:x:2:root,bin,daemon
sys:x:3:root,bin
adm:x:4:root,daemon
tty:x:5:
disk:x:6:root
lp:x:7:lp
mem:x:8:
kmem:x:9:
wheel:x:10:root
floppy:x:11:root
mail:x:12:mail
nogroup:x:65533:
nobody:x:65534:
users:x:100:
`

const addgroup = `#!/bin/sh
gid=
while [ $# -gt 1 ]; do
	case $1 in
	-g) gid=$2; shift 2 ;;
	-S) shift ;;
	*) break ;;
	esac
done
if [ $# -eq 2 ]; then
	sed -i "s/^\($2:[^:]*:[^:]*:\)\(.*\)/\1\2,$1/; s/:,/:/" /etc/group
	exit
fi
if [ -z "$gid" ]; then
	gid=1000
	while grep -q "^[^:]*:[^:]*:$gid:" /etc/group; do gid=$((gid + 1)); done
fi
if grep -q "^$1:" /etc/group; then
	echo "addgroup: group '$1' in use" >&2
	exit 1
fi
echo "$1:x:$gid:" >>/etc/group
`

const adduser = `#!/bin/sh
uid= group= home= shell=/bin/sh
while [ $# -gt 1 ]; do
	case $1 in
	-u) uid=$2; shift 2 ;;
	-G) group=$2; shift 2 ;;
	-h) home=$2; shift 2 ;;
	-s) shell=$2; shift 2 ;;
	-g) shift 2 ;;
	-*) shift ;;
	*) break ;;
	esac
done
[ $# -ne 2 ] || exec addgroup "$1" "$2"
if grep -q "^$1:" /etc/passwd; then
	echo "adduser: user '$1' in use" >&2
	exit 1
fi
if [ -z "$uid" ]; then
	uid=1000
	while grep -q "^[^:]*:[^:]*:$uid:" /etc/passwd; do uid=$((uid + 1)); done
fi
if [ -z "$group" ]; then
	group=$1
	addgroup -g "$uid" "$1" 2>/dev/null || addgroup "$1"
fi
gid=$(sed -n "s/^$group:[^:]*:\([0-9]*\):.*/\1/p" /etc/group)
home=${home:-/home/$1}
echo "$1:x:$uid:$gid:Linux User,,,:$home:$shell" >>/etc/passwd
echo "$1:!:::::::" >>/etc/shadow
mkdir -p "$home"
chown "$uid:$gid" "$home"
chmod 2755 "$home"
`
