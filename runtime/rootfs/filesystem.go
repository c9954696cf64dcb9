package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

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
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		if err == unix.ENODEV {
			return nil, fmt.Errorf("the kernel knows no file system %q", fstype)
		}
		return nil, fmt.Errorf("fsopen: %w", err)
	}
	fs := os.NewFile(uintptr(fd), fstype)
	defer fs.Close()
	list := fsOptionsOf(fstype, src, opts, "")
	if mapping != nil {
		if list, err = t.mapOverlay(list, mapping); err != nil {
			return nil, err
		}
	}
	if fstype == "overlay" {
		if list, err = t.overlayOptions(list, fd); err != nil {
			return nil, err
		}
	}
	for _, o := range list {
		if o.value == nil {
			err = unix.FsconfigSetFlag(fd, o.key)
		} else {
			err = unix.FsconfigSetString(fd, o.key, *o.value)
		}
		if err != nil {
			return nil, fmt.Errorf("option %s: %w%s", o.key, err, fsMessage(fd))
		}
	}
	if err := createAs(fd, mapping); err != nil {
		return nil, fmt.Errorf("%w%s", err, fsMessage(fd))
	}
	mfd, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, int(opts.set))
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return t.own(mfd, fstype), nil
}

// fsMessage is what the kernel says about a failed file system.
func fsMessage(fd int) string {
	var buf [512]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil || n < 3 {
		return ""
	}
	return " (" + strings.TrimSpace(string(buf[2:n])) + ")"
}

// overlayOptions gives overlay its layers one by one: a value of fsconfig has at most 255 bytes, which a list of
// many layers exceeds. Kernels before 6.5 lack "lowerdir+"; there, short names of descriptors go into one value.
func (t *Tree) overlayOptions(list []fsOption, fsfd int) ([]fsOption, error) {
	var out []fsOption
	for _, o := range list {
		if o.value == nil {
			out = append(out, o)
			continue
		}
		v := *o.value
		switch o.key {
		case "upperdir", "workdir":
			short, err := t.shortName(v)
			if err != nil {
				return nil, err
			}
			out = append(out, fsOption{o.key, &short})
		case "lowerdir":
			lowers, err := splitLowers(v)
			if err != nil {
				return nil, err
			}
			for i, l := range lowers {
				l, err := t.shortName(t.abs(l))
				if err != nil {
					return nil, err
				}
				lowers[i] = l
			}
			if unix.FsconfigSetString(fsfd, "lowerdir+", lowers[0]) == nil {
				for _, l := range lowers[1:] {
					out = append(out, fsOption{"lowerdir+", &l})
				}
				continue
			}
			for i, l := range lowers {
				if !strings.HasPrefix(l, "/proc/self/fd/") {
					lowers[i] = strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(l)
				}
			}
			joined := strings.Join(lowers, ":")
			if len(joined) > 255 {
				return nil, fmt.Errorf("%d layers are more than this kernel takes (Linux 6.5 has no limit)", len(lowers))
			}
			out = append(out, fsOption{o.key, &joined})
		default:
			out = append(out, o)
		}
	}
	return out, nil
}

// shortName is a name of a directory that fits into an option: itself, or that of a descriptor.
func (t *Tree) shortName(p string) (string, error) {
	if len(p) <= 200 {
		return p, nil
	}
	fd, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: p, Err: err}
	}
	t.own(fd, p)
	return fmt.Sprintf("/proc/self/fd/%d", fd), nil
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
		return errors.New("tmpcopyup needs a privileged caller")
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
