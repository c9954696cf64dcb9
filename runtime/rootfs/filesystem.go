package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"cale/runtime/linux"
	"cale/runtime/overlay"

	"golang.org/x/sys/unix"
)

// fsOptions is what fsconfig is told, in order; a value of nil is a flag.
type fsOption struct {
	key   string
	value *string
}

func (m *mount) fsOptions() []fsOption { return fsOptionsOf(m.Type, m.Source, m.opts, m.mode) }

func fsOptionsOf(fstype, src string, opts options, mode string) []fsOption {
	var list []fsOption
	add := func(k, v string) { list = append(list, fsOption{k, &v}) }
	if src != "" {
		add("source", src)
	}
	for _, f := range opts.superFlags {
		list = append(list, fsOption{key: f})
	}
	if opts.readonly && !inChild[fstype] {
		list = append(list, fsOption{key: "ro"})
	}
	for _, d := range opts.data {
		k, v, ok := strings.Cut(d, "=")
		if !ok {
			list = append(list, fsOption{key: k})
			continue
		}
		if k == "mode" {
			mode = ""
		}
		add(k, v)
	}
	if mode != "" {
		add("mode", mode)
	}
	return list
}

// makeFS makes a file system in the parent, detached; an overlay with the owners of a mapping, if there is one.
func (t *Tree) makeFS(fstype, src string, opts options, mapping *rootMapping) (*os.File, error) {
	list := fsOptionsOf(fstype, src, opts, "")
	if fstype == "overlay" {
		return t.makeOverlay(list, opts, mapping)
	}
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		if err == unix.ENODEV {
			return nil, fmt.Errorf("the kernel knows no file system %q", fstype)
		}
		return nil, fmt.Errorf("fsopen: %w", err)
	}
	fs := os.NewFile(uintptr(fd), fstype)
	defer fs.Close()
	for _, o := range list {
		if o.value == nil {
			err = unix.FsconfigSetFlag(fd, o.key)
		} else {
			err = unix.FsconfigSetString(fd, o.key, *o.value)
		}
		if err != nil {
			return nil, fmt.Errorf("option %s: %w%s", o.key, err, linux.FSMessage(fd))
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, fmt.Errorf("%w%s", err, linux.FSMessage(fd))
	}
	mfd, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, int(opts.set))
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return t.own(mfd, fstype), nil
}

// makeOverlay mounts an overlay of the options that mount(8) takes.
func (t *Tree) makeOverlay(list []fsOption, opts options, mapping *rootMapping) (*os.File, error) {
	m := overlay.Mount{Attrs: opts.set}
	for _, o := range list {
		switch {
		case o.key == "source":
		case o.key == "ro":
			m.Attrs |= unix.MOUNT_ATTR_RDONLY
		case o.value == nil:
			m.Options = append(m.Options, o.key)
		case o.key == "upperdir":
			m.Upper.Path = t.abs(*o.value)
		case o.key == "workdir":
			m.Work.Path = t.abs(*o.value)
		case o.key == "lowerdir":
			dirs, err := splitLowers(*o.value)
			if err != nil {
				return nil, err
			}
			for _, dir := range dirs {
				m.Lower = append(m.Lower, overlay.Dir{Path: t.abs(dir)})
			}
		case o.key == "lowerdir+":
			m.Lower = append(m.Lower, overlay.Dir{Path: t.abs(*o.value)})
		default:
			m.Options = append(m.Options, o.key+"="+*o.value)
		}
	}
	if mapping != nil {
		if err := t.mapOverlay(&m, mapping); err != nil {
			return nil, err
		}
	}
	f, err := m.Make()
	if err != nil {
		return nil, err
	}
	t.fds = append(t.fds, f)
	return f, nil
}

// splitLowers splits overlay's list at colons that have no backslash before them.
func splitLowers(v string) ([]string, error) {
	var list []string
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		switch {
		case v[i] == '\\' && i+1 < len(v):
			i++
			b.WriteByte(v[i])
		case v[i] == ':':
			list = append(list, b.String())
			b.Reset()
		default:
			b.WriteByte(v[i])
		}
	}
	list = append(list, b.String())
	if slices.Contains(list, "") {
		return nil, errors.New("overlay: empty name, or a data-only layer, in lowerdir")
	}
	return list, nil
}

// prepareTmpfs finds the mode a tmpfs takes from the directory it covers, and makes it in the parent if it is to
// start with a copy of that directory.
func (t *Tree) prepareTmpfs(m *mount) error {
	if m.opts.remount {
		return nil
	}
	var stx unix.Statx_t
	if fd, err := t.lookup(m.dest, unix.O_PATH|unix.O_DIRECTORY); err == nil {
		err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MODE, &stx)
		unix.Close(fd)
		if err == nil && !t.covered(m.dest) {
			m.mode = fmt.Sprintf("%o", stx.Mode&0o7777)
		}
	}
	if !m.opts.copyUp {
		return nil
	}
	if t.o.Unprivileged {
		return nil // the child makes it, and has it filled
	}
	opts := m.opts
	opts.data = slices.Clone(opts.data)
	if m.mode != "" && !slices.ContainsFunc(opts.data, func(s string) bool { return strings.HasPrefix(s, "mode=") }) {
		opts.data = append(opts.data, "mode="+m.mode)
	}
	ro := opts.set & unix.MOUNT_ATTR_RDONLY
	opts.set &^= unix.MOUNT_ATTR_RDONLY
	fd, err := t.makeFS("tmpfs", "tmpfs", opts, nil)
	if err != nil {
		return err
	}
	if err := t.copyUp(fd, m.dest); err != nil {
		return fmt.Errorf("copy up: %w", err)
	}
	if ro != 0 {
		m.opts.rset |= ro
	}
	m.fd = fd
	return nil
}

// covered reports whether an earlier mount lies over a path, so that what the parent sees there isn't what counts.
func (t *Tree) covered(dest string) bool {
	for _, m := range t.mounts[:t.placed] {
		if m.dest != "" && strings.HasPrefix(dest+"/", m.dest+"/") {
			return true
		}
	}
	return false
}

// covers reports whether an earlier mount lies below a path.
func (t *Tree) covers(dir string) bool {
	for _, m := range t.mounts[:t.placed] {
		if strings.HasPrefix(m.dest, dir+"/") {
			return true
		}
	}
	return false
}

// maxAgain bounds how often a lookup that met a change of the tree is repeated.
const maxAgain = 1000

// lookup opens a path in the root.
func (t *Tree) lookup(p string, flags int) (int, error) {
	for again := 0; ; again++ {
		fd, err := unix.Openat2(int(t.root.Fd()), path.Join(".", p), &unix.OpenHow{
			Flags:   uint64(flags | unix.O_CLOEXEC),
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		// EAGAIN: the kernel is unsure about a ".." while something else is mounted or renamed.
		if err != unix.EINTR && (err != unix.EAGAIN || again == maxAgain) {
			return fd, err
		}
	}
}
