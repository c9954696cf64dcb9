package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"cale/runtime/linux"
	"cale/runtime/overlay"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rootMapping maps the owners of a container's root. The mount says so with containerd's options,
// uidmap=CONTAINER:HOST:SIZE and gidmap likewise, several ranges parted by commas.
type rootMapping struct {
	uids, gids []specs.LinuxIDMapping
	ns         *os.File
}

// takeMapping takes the mapping out of a root mount's options; nil is none.
func (t *Tree) takeMapping(o *options) (*rootMapping, error) {
	var m rootMapping
	var err error
	o.data = slices.DeleteFunc(o.data, func(d string) bool {
		for key, to := range map[string]*[]specs.LinuxIDMapping{"uidmap=": &m.uids, "gidmap=": &m.gids} {
			if v, ok := strings.CutPrefix(d, key); ok {
				list, e := parseIDs(v)
				if *to = append(*to, list...); e != nil {
					err = e
				}
				return true
			}
		}
		return false
	})
	switch {
	case err != nil:
		return nil, err
	case len(m.uids) == 0 && len(m.gids) == 0:
		return nil, nil
	case len(m.uids) == 0 || len(m.gids) == 0:
		return nil, errors.New("mapped owners need both uidmap and gidmap")
	case t.o.Unprivileged || t.o.UserNS == nil:
		return nil, errors.New("mapped owners need a privileged caller")
	}
	if m.ns, err = t.o.UserNS(m.uids, m.gids); err != nil {
		return nil, fmt.Errorf("user namespace of the mapping: %w", err)
	}
	t.fds = append(t.fds, m.ns)
	return &m, nil
}

func parseIDs(text string) (list []specs.LinuxIDMapping, err error) {
	for r := range strings.SplitSeq(text, ",") {
		var n [3]uint64
		f := strings.Split(r, ":")
		for i := 0; i < len(f) && i < 3 && err == nil; i++ {
			n[i], err = strconv.ParseUint(f[i], 10, 32)
		}
		if len(f) != 3 || err != nil || n[2] == 0 {
			return nil, fmt.Errorf("id mapping %q: it has to be CONTAINER:HOST:SIZE", r)
		}
		list = append(list, specs.LinuxIDMapping{ContainerID: uint32(n[0]), HostID: uint32(n[1]), Size: uint32(n[2])})
	}
	return list, nil
}

// mapped is a directory with mapped owners, as a detached mount.
func (t *Tree) mapped(dir string, m *rootMapping) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := t.own(fd, dir)
	if err := t.mapOwners(f, m.ns, options{}); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return f, nil
}

// mapOverlay replaces an overlay's directories by ones with mapped owners, so that what the container writes is kept
// with the owners that the container knows. An upper directory that belongs to the mapping's root already was made
// for shifted owners, as containerd does it: it stays as it is. The kernel does its own work as the mapping's root,
// since that identity has to exist in the mapping.
func (t *Tree) mapOverlay(o *overlay.Mount, m *rootMapping) error {
	o.As = &linux.Identity{UID: int(m.uids[0].HostID), GID: int(m.gids[0].HostID)}
	var err error
	for i, dir := range o.Lower {
		if o.Lower[i].Mount, err = t.mapped(dir.Path, m); err != nil {
			return err
		}
		o.Lower[i].Path = ""
	}
	upper, work := o.Upper.Path, o.Work.Path
	if upper == "" {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(upper, &st); err != nil {
		return &os.PathError{Op: "stat", Path: upper, Err: err}
	}
	if st.Uid == m.uids[0].HostID && st.Uid != 0 {
		return nil
	}
	// The two have to be on one mount.
	if path.Dir(upper) != path.Dir(work) {
		return fmt.Errorf("overlay with mapped owners: %s and %s have to be in one directory", upper, work)
	}
	parent, err := t.mapped(path.Dir(upper), m)
	if err != nil {
		return err
	}
	o.Upper, o.Work = overlay.Dir{Mount: parent, Path: path.Base(upper)}, overlay.Dir{Mount: parent, Path: path.Base(work)}
	return nil
}
