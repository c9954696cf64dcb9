package rootfs

import (
	"errors"
	"maps"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// prepareCgroup turns a mount of type cgroup into binds of the container's own groups. That is what a mount in a
// cgroup namespace of its own shows, works without one too, and needs no rights in a user namespace.
func (t *Tree) prepareCgroup(m mount) error {
	dirs := t.o.CgroupDirs
	if len(dirs) == 0 {
		// It was let be without one before: there is none to be had.
		t.o.Warn("no control groups are mounted here: " + m.Destination + " shows none")
		return nil
	}
	attrs := func(o *options) {
		o.bind = true
		o.set |= unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
		o.data, o.superFlags = nil, nil
	}
	if v2, ok := dirs[""]; ok && len(dirs) == 1 {
		return t.bindCgroup(m.dest, m, v2, attrs)
	}
	if m.Type == "cgroup2" {
		return errors.New("cgroup2 is not what this machine limits containers with")
	}
	top := m
	top.Type, top.Source = "tmpfs", "tmpfs"
	top.opts.data = []string{"mode=755"}
	// Read-only comes when the directories below are made.
	readonly := top.opts.set & unix.MOUNT_ATTR_RDONLY
	top.opts.set &^= readonly
	top.opts.readonly = false
	t.mounts = append(t.mounts, top)
	links := map[string]string{}
	var dirNames []string
	for _, c := range slices.Sorted(maps.Keys(dirs)) {
		dir := dirs[c]
		name := hierarchyName(dir)
		if !slices.Contains(dirNames, name) {
			dirNames = append(dirNames, name)
			if err := t.bindCgroup(path.Join(m.dest, name), m, dir, attrs); err != nil {
				return err
			}
		}
		c = strings.TrimPrefix(c, "name=")
		if c != "" && c != name {
			links[c] = name
		}
	}
	for _, c := range slices.Sorted(maps.Keys(links)) {
		t.mounts = append(t.mounts, mount{Mount: specs.Mount{Type: linkType, Source: links[c]}, dest: path.Join(m.dest, c)})
	}
	if readonly != 0 {
		t.mounts = append(t.mounts, mount{
			Mount: specs.Mount{Type: "tmpfs", Destination: m.Destination}, dest: m.dest,
			opts: options{remount: true, bind: true, set: readonly},
		})
	}
	return nil
}

// linkType is a mount that is a symbolic link; no configuration can ask for it, since mounts need an absolute
// destination and this one is made here only.
const linkType = "\x00link"

// hierarchyName is the name of a hierarchy's mount: the part of a group's path after /sys/fs/cgroup.
func hierarchyName(dir string) string {
	rest, ok := strings.CutPrefix(dir, "/sys/fs/cgroup/")
	if !ok {
		return path.Base(dir)
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

func (t *Tree) bindCgroup(dest string, m mount, dir string, attrs func(*options)) error {
	m.dest = dest
	attrs(&m.opts)
	s, err := t.openSource(dir, false, true, false)
	if err != nil {
		return err
	}
	m.src = &s
	t.mounts = append(t.mounts, m)
	return nil
}
