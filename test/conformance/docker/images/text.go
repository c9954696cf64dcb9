package main

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

const group = `root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
kmem:x:9:
wheel:x:10:root
cdrom:x:11:
dialout:x:18:
floppy:x:19:
video:x:28:
audio:x:29:
tape:x:32:
www-data:x:33:
operator:x:37:
utmp:x:43:
plugdev:x:46:
staff:x:50:
lock:x:54:
netdev:x:82:
users:x:100:
nobody:x:65534:
`

// Debian's busybox has no adduser: this does what the suites ask of it.
const adduser = `#!/bin/sh
# adduser [-D] [-H] [-S] [-u UID] [-G GROUP] [-s SHELL] [-h HOME] NAME
uid=1000 group= shell=/bin/sh home= nohome=
while [ $# -gt 1 ]; do
	case $1 in
	-u) uid=$2; shift 2 ;;
	-G) group=$2; shift 2 ;;
	-s) shell=$2; shift 2 ;;
	-h) home=$2; shift 2 ;;
	-g) shift 2 ;;
	-H) nohome=1; shift ;;
	*) shift ;;
	esac
done
name=$1
[ -n "$home" ] || home=/home/$name
gid=$uid
if [ -n "$group" ]; then
	gid=$(grep "^$group:" /etc/group | cut -d: -f3)
else
	grep -q "^$name:" /etc/group || echo "$name:x:$gid:" >>/etc/group
fi
echo "$name:x:$uid:$gid:Linux User,,,:$home:$shell" >>/etc/passwd
[ -n "$nohome" ] || { mkdir -p "$home"; chown "$uid:$gid" "$home"; }
`

// Nor has it printenv.
const printenv = `#!/bin/sh
[ $# != 0 ] || exec env
env | grep -q "^$1=" || exit 1
env | sed -n "s/^$1=//p"
`

const addgroup = `#!/bin/sh
# addgroup [-S] [-g GID] NAME
gid=1000
while [ $# -gt 1 ]; do
	case $1 in
	-g) gid=$2; shift 2 ;;
	*) shift ;;
	esac
done
grep -q "^$1:" /etc/group || echo "$1:x:$gid:" >>/etc/group
`

const greeting = `package main

import "os"

func main() {
	os.Stdout.WriteString("\\nHello from Docker!\\nThis message shows that your installation appears to be working correctly.\\n\\n")
}
`
