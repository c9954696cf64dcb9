package rootfs

import (
	"errors"
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultDevices are what the specification requires (config-linux.md, default devices).
var defaultDevices = []node{
	{path: "dev/null", mode: unix.S_IFCHR | 0o666, dev: unix.Mkdev(1, 3)},
	{path: "dev/zero", mode: unix.S_IFCHR | 0o666, dev: unix.Mkdev(1, 5)},
	{path: "dev/full", mode: unix.S_IFCHR | 0o666, dev: unix.Mkdev(1, 7)},
	{path: "dev/random", mode: unix.S_IFCHR | 0o666, dev: unix.Mkdev(1, 8)},
	{path: "dev/urandom", mode: unix.S_IFCHR | 0o666, dev: unix.Mkdev(1, 9)},
	{path: "dev/tty", mode: unix.S_IFCHR | 0o666, dev: unix.Mkdev(5, 0)},
}

// devLinks are the specification's links, and /dev/ptmx.
var devLinks = []struct{ name, target string }{
	{"fd", "/proc/self/fd"},
	{"stdin", "/proc/self/fd/0"},
	{"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"},
	{"ptmx", "pts/ptmx"},
}

// ownDev reports whether /dev is ours to fill: it isn't when it is bound from the host.
func (t *Tree) ownDev() bool {
	own := true
	for _, m := range t.mounts {
		if m.dest == "dev" {
			own = m.src == nil
		}
	}
	return own && len(t.o.Spec.Mounts) > 0 || t.hasDevices()
}

func (t *Tree) hasDevices() bool {
	return t.o.Spec.Linux != nil && len(t.o.Spec.Linux.Devices) > 0
}

func (t *Tree) prepareDevices() error {
	seen := map[string]bool{}
	if l := t.o.Spec.Linux; l != nil {
		for _, d := range l.Devices {
			n := node{path: clean(d.Path), dev: unix.Mkdev(uint32(d.Major), uint32(d.Minor))}
			const maxMajor, maxMinor = 1<<12 - 1, 1<<20 - 1 // the kernel's; it would take a device by other numbers
			if d.Type != "p" && (d.Major < 0 || d.Major > maxMajor || d.Minor < 0 || d.Minor > maxMinor) {
				return fmt.Errorf("device %s: no device has the numbers %d:%d", d.Path, d.Major, d.Minor)
			}
			switch d.Type {
			case "c", "u":
				n.mode = unix.S_IFCHR
			case "b":
				n.mode = unix.S_IFBLK
			case "p":
				n.mode, n.dev = unix.S_IFIFO, 0
			default:
				return fmt.Errorf("device %s: unknown type %q", d.Path, d.Type)
			}
			perm := uint32(0o666)
			if d.FileMode != nil {
				perm = uint32(*d.FileMode) & 0o777
			}
			n.mode |= perm
			if d.UID != nil {
				n.uid = *d.UID
			}
			if d.GID != nil {
				n.gid = *d.GID
			}
			if n.path == "" {
				return errors.New("device without a path")
			}
			if n.path == "dev/ptmx" && t.ownDev() {
				continue // the link is there, to the container's own
			}
			n.owned = d.FileMode != nil || d.UID != nil || d.GID != nil
			seen[n.path] = true
			t.nodes = append(t.nodes, n)
		}
	}
	if t.ownDev() {
		for _, n := range defaultDevices {
			if !seen[n.path] {
				t.nodes = append(t.nodes, n)
			}
		}
	}
	if !t.o.NewUser && !t.o.Unprivileged {
		return nil
	}
	// A user namespace can't make device nodes: bind the host's, or what is made out here.
	for i := range t.nodes {
		n := &t.nodes[i]
		if n.mode&unix.S_IFMT == unix.S_IFIFO {
			continue
		}
		host := "/" + n.path
		s, err := t.hostDevice(host, n)
		if (err != nil || n.owned) && !t.o.Unprivileged && t.makeNode(n) == nil {
			continue
		}
		if err != nil {
			return fmt.Errorf("device %s: %w", host, err)
		}
		n.src = &s
	}
	return nil
}

// hostDevice opens the host's device of that path, if it is the same one.
func (t *Tree) hostDevice(host string, n *node) (source, error) {
	var stx unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, host, 0, unix.STATX_TYPE, &stx); err != nil {
		return source{}, err
	}
	if uint32(stx.Mode)&unix.S_IFMT != n.mode&unix.S_IFMT || unix.Mkdev(stx.Rdev_major, stx.Rdev_minor) != n.dev {
		return source{}, errors.New("the host has another device there")
	}
	return t.openSource(host, false, false, false)
}

// makeNode makes a node on a file system that only we see, owned as the container's user namespace has it. It needs a
// kernel that clones mounts which are not attached (6.15).
func (t *Tree) makeNode(n *node) error {
	l := t.o.Spec.Linux
	uid, ok := mapped(l.UIDMappings, n.uid)
	gid, ok2 := mapped(l.GIDMappings, n.gid)
	if !ok || !ok2 {
		return errors.New("its owner is not mapped")
	}
	if t.made == nil {
		fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fs)
		if err := unix.FsconfigSetString(fs, "mode", "0755"); err != nil {
			return err
		}
		if err := unix.FsconfigCreate(fs); err != nil {
			return err
		}
		fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID)
		if err != nil {
			return err
		}
		t.made = t.own(fd, "devices")
	}
	dir, name := int(t.made.Fd()), fmt.Sprint(len(t.fds))
	if err := unix.Mknodat(dir, name, n.mode, int(n.dev)); err != nil {
		return err
	}
	if err := unix.Fchownat(dir, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := unix.Fchmodat(dir, name, n.mode&0o777, 0); err != nil { // past the umask
		return err
	}
	fd, err := unix.OpenTree(dir, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	n.src = &source{path: "/" + n.path, fd: t.own(fd, n.path)}
	return nil
}

// mapped is what an ID of a user namespace is outside it.
func mapped(ids []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, m := range ids {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return 0, false
}

// canonical is the name of a path in the root with its links resolved as far as it exists, so that the missing part
// can be made there even if a link leads to nothing. It is only a name: whoever uses it resolves it in the root
// again.
func (t *Tree) canonical(p string) string {
	if fd, err := t.lookup(p, unix.O_PATH); err == nil {
		unix.Close(fd)
		return p
	}
	return t.withoutLinks(p)
}

// withoutLinks is canonical also for a path that exists.
func (t *Tree) withoutLinks(p string) string {
	rest := strings.Split(p, "/")
	done := "" // without links
	for links := 0; len(rest) > 0; {
		c := rest[0]
		rest = rest[1:]
		if c == "" || c == "." {
			continue
		}
		if c == ".." {
			done = clean(path.Dir(done))
			continue
		}
		next := path.Join(done, c)
		fd, err := t.lookup(done, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			done = next
			continue
		}
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, c, buf)
		unix.Close(fd)
		if err != nil {
			done = next
			continue
		}
		if links++; links > 40 {
			return p
		}
		target := string(buf[:n])
		if strings.HasPrefix(target, "/") {
			done = ""
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return done
}
