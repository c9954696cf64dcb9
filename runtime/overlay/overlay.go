// Package overlay makes overlay mounts, detached from every tree, on every kernel that has detached mounts.
//
// There are two ways to tell the kernel of many layers. Since Linux 6.7 they are given one by one. Before, all of them
// have to fit into one string, of 255 bytes for fsconfig(2) and of a page for mount(2): the latter is used, with the
// short names that open directories have.
package overlay

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"cale/runtime/linux"

	"golang.org/x/sys/unix"
)

// Mount is an overlay to be made.
type Mount struct {
	// Lower are the directories that are only read, the uppermost first.
	Lower []Dir
	// Upper gets what is written, Work is overlay's own, on the same mount. Both may be empty: nothing can be written.
	Upper, Work Dir
	// Options are the file system's others, as in mount(8): "index=off", "volatile".
	Options []string
	// Attrs are the mount's attributes, MOUNT_ATTR_... of mount_setattr(2).
	Attrs uint64
	// As is the user that the kernel does overlay's own work as, such as making whiteouts; nil is the caller.
	As *linux.Identity
}

// Dir is a directory: by its path, or, with Mount, by its path below the root of a detached mount, "" for the root.
// The mount stays the caller's; overlay may attach it where nobody sees it.
type Dir struct {
	Path  string
	Mount *os.File
}

// name is a path of the directory.
func (d Dir) name() string {
	if d.Mount == nil {
		return d.Path
	}
	return path.Join(fmt.Sprintf("/proc/self/fd/%d", d.Mount.Fd()), d.Path)
}

// Paths are directories by their paths.
func Paths(list []string) []Dir {
	dirs := make([]Dir, len(list))
	for i, p := range list {
		dirs[i].Path = p
	}
	return dirs
}

// Make mounts it. The file is the mount's root; the mount goes with the last use of it, unless it is attached.
func (m *Mount) Make() (*os.File, error) {
	if len(m.Lower) == 0 {
		return nil, errors.New("overlay: no layers")
	}
	if m.As == nil && !m.detached() && oneByOne() {
		return m.configure()
	}
	return inThread(func() (*os.File, error) {
		if m.As != nil {
			if err := m.As.Take(); err != nil {
				return nil, err
			}
		}
		if oneByOne() {
			// Many kernels refuse directories of a mount that is attached nowhere.
			if f, err := m.configure(); !m.detached() || !errors.Is(err, unix.EINVAL) {
				return f, err
			}
		}
		return m.attach()
	})
}

// detached tells whether any directory is of a detached mount.
func (m *Mount) detached() bool {
	return m.Upper.Mount != nil || slices.ContainsFunc(m.Lower, func(d Dir) bool { return d.Mount != nil })
}

// inThread is linux.InThread for what makes a file.
func inThread(f func() (*os.File, error)) (file *os.File, err error) {
	linux.InThread(func() { file, err = f() })
	return file, err
}

// oneByOne tells whether the kernel takes "lowerdir+". One that reads options as mount(2) does takes any name for the
// time being, also one that does not exist.
var oneByOne = sync.OnceValue(func() bool {
	takes := func(key string) bool {
		fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
		if err != nil {
			return false
		}
		defer unix.Close(fs)
		return unix.FsconfigSetString(fs, key, "/") == nil
	}
	return !takes("no-such-option") && takes("lowerdir+")
})

// longest is what fsconfig takes of a string.
const longest = 255

func (m *Mount) configure() (*os.File, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("overlay: fsopen: %w", err)
	}
	defer unix.Close(fs)
	var names names
	defer names.close()
	set := func(key, value string) {
		if err != nil {
			return
		}
		if err = unix.FsconfigSetString(fs, key, value); err != nil {
			err = fmt.Errorf("overlay: option %s: %w%s", key, err, linux.FSMessage(fs))
		}
	}
	setDir := func(key string, dir Dir) {
		name := dir.name()
		if len(name) > longest && err == nil {
			name, err = names.of(name)
		}
		set(key, name)
	}
	set("source", "overlay")
	for _, dir := range m.Lower {
		setDir("lowerdir+", dir)
	}
	if m.Upper != (Dir{}) {
		setDir("upperdir", m.Upper)
		setDir("workdir", m.Work)
	}
	for _, o := range m.Options {
		if key, value, ok := strings.Cut(o, "="); ok {
			set(key, value)
		} else if err == nil {
			if err = unix.FsconfigSetFlag(fs, key); err != nil {
				err = fmt.Errorf("overlay: option %s: %w%s", key, err, linux.FSMessage(fs))
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("overlay: %w%s", err, linux.FSMessage(fs))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(m.Attrs))
	if err != nil {
		return nil, fmt.Errorf("overlay: fsmount: %w", err)
	}
	return os.NewFile(uintptr(fd), "overlay"), nil
}

// attach uses mount(2), which attaches what it makes, in a mount namespace of the thread's own, and takes a copy.
func (m *Mount) attach() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("overlay: mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("overlay: mount namespace: %w", err)
	}
	dirs := slices.Clone(m.Lower)
	if m.Upper != (Dir{}) {
		dirs = append(dirs, m.Upper, m.Work)
	}
	var names names
	defer names.close()
	short := make([]string, len(dirs))
	var err error
	for i, dir := range dirs { // before their place is covered
		if dir.Mount == nil {
			if short[i], err = names.of(dir.Path); err != nil {
				return nil, err
			}
		}
	}
	at, err := place()
	if err != nil {
		return nil, err
	}
	for i, dir := range dirs {
		if dir.Mount != nil {
			if short[i], err = names.attached(at, dir); err != nil {
				return nil, err
			}
		}
	}
	n := len(m.Lower)
	options := append(slices.Clone(m.Options), "lowerdir="+strings.Join(short[:n], ":"))
	if m.Upper != (Dir{}) {
		options = append(options, "upperdir="+short[n], "workdir="+short[n+1])
	}
	data := strings.Join(options, ",")
	if len(data) >= os.Getpagesize() {
		return nil, fmt.Errorf("overlay: %d layers are more than this kernel takes (Linux 6.7 has no limit)", len(m.Lower))
	}
	var flags uintptr
	if m.Attrs&unix.MOUNT_ATTR_RDONLY != 0 {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("overlay", at, "overlay", flags, data); err != nil {
		return nil, fmt.Errorf("overlay: %w", err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("overlay: open_tree: %w", err)
	}
	file := os.NewFile(uintptr(fd), "overlay")
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: m.Attrs}); err != nil {
		file.Close()
		return nil, fmt.Errorf("overlay: mount_setattr: %w", err)
	}
	return file, nil
}

// place puts an empty file system over a directory that every machine has, in the thread's mount namespace.
func place() (string, error) {
	var err error
	for _, at := range []string{"/run", "/tmp", "/sys", "/dev"} {
		if err = unix.Mount("tmpfs", at, "tmpfs", 0, "mode=700"); err == nil {
			return at, nil
		}
	}
	return "", fmt.Errorf("overlay: no directory to mount on: %w", err)
}

// names are short names of directories, good until they are closed.
type names struct {
	open   []*os.File
	mounts map[*os.File]string
}

// of is the name of an open directory.
func (n *names) of(dir string) (string, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	n.open = append(n.open, os.NewFile(uintptr(fd), dir))
	return fmt.Sprintf("/proc/self/fd/%d", fd), nil
}

// attached is the name of a directory of a detached mount, which is attached below at.
func (n *names) attached(at string, dir Dir) (string, error) {
	name, ok := n.mounts[dir.Mount]
	if !ok {
		name = fmt.Sprintf("%s/%d", at, len(n.mounts))
		if err := os.Mkdir(name, 0o700); err != nil {
			return "", err
		}
		if err := unix.MoveMount(int(dir.Mount.Fd()), "", unix.AT_FDCWD, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return "", fmt.Errorf("overlay: attach a layer: %w", err)
		}
		if n.mounts == nil {
			n.mounts = map[*os.File]string{}
		}
		n.mounts[dir.Mount] = name
	}
	return path.Join(name, dir.Path), nil
}

func (n *names) close() {
	for _, f := range n.open {
		f.Close()
	}
}
