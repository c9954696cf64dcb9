package engine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/image"
)

// openLayers opens a tree made of directories (top first) for reading. It is a detached overlay mount no process can
// see; it goes with the descriptor.
func openLayers(dirs []string, scratch string) (*filetree.Root, error) {
	if len(dirs) == 1 {
		return filetree.Open(dirs[0])
	}
	if len(dirs) == 0 {
		return nil, errors.New("no layers")
	}
	fd, err := overlayFD(dirs, "", "")
	if oldKernel(err) {
		return overlayOld(dirs, scratch)
	}
	if err != nil {
		return nil, fmt.Errorf("mount overlay: %w", err)
	}
	return filetree.FromFD(fd, "container"), nil
}

// oldKernel says whether an overlay failed for want of "lowerdir+", which came with Linux 6.7.
func oldKernel(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP)
}

// overlayFD makes a detached overlay mount: for reading only, or writable with upper and work.
func overlayFD(dirs []string, upper, work string) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	set := func(key, value string) {
		if err == nil {
			err = unix.FsconfigSetString(fs, key, value)
		}
	}
	set("source", "overlay")
	for _, d := range dirs {
		set("lowerdir+", d)
	}
	attr := unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	if upper != "" {
		set("upperdir", upper)
		set("workdir", work)
	} else {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
}

// shortNames gives names for directories that fit, many of them, into the one page mount(2) takes.
func shortNames(dirs []string) (names []string, done func(), err error) {
	var open []*filetree.Root
	done = func() {
		for _, f := range open {
			f.Close()
		}
	}
	for _, d := range dirs {
		f, err := filetree.Open(d)
		if err != nil {
			done()
			return nil, nil, err
		}
		open = append(open, f)
		names = append(names, "/proc/self/fd/"+strconv.Itoa(f.FD()))
	}
	return names, done, nil
}

// overlayOld mounts with mount(2), and takes the mount away again.
func overlayOld(dirs []string, scratch string) (*filetree.Root, error) {
	names, done, err := shortNames(dirs)
	if err != nil {
		return nil, err
	}
	defer done()
	at, err := os.MkdirTemp(scratch, "view-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(at)
	flags := uintptr(unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC)
	if err := unix.Mount("overlay", at, "overlay", flags, "lowerdir="+strings.Join(names, ":")); err != nil {
		return nil, fmt.Errorf("mount overlay: %w", err)
	}
	f, err := filetree.Open(at)
	if err2 := unix.Unmount(at, unix.MNT_DETACH); err == nil && err2 != nil {
		f.Close()
		err = fmt.Errorf("unmount %s: %w", at, err2)
	}
	return f, err
}

// mountOverlay mounts a writable overlay at a path.
func mountOverlay(dirs []string, upper, work, at string) error {
	fd, err := overlayFD(dirs, upper, work)
	if oldKernel(err) {
		names, done, err := shortNames(append([]string{upper, work}, dirs...))
		if err != nil {
			return err
		}
		defer done()
		opts := "upperdir=" + names[0] + ",workdir=" + names[1] + ",lowerdir=" + strings.Join(names[2:], ":")
		if err := unix.Mount("overlay", at, "overlay", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, opts); err != nil {
			return fmt.Errorf("mount overlay: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}

// accounts are the passwd and group files of a tree.
type accounts struct{ passwd, group []byte }

// accountCache keeps the accounts of images lately used: a container that never ran has the image's.
type accountCache struct {
	mu    sync.Mutex
	byTop map[string]accounts
}

const (
	maxAccounts     = 32
	maxAccountsSize = 1 << 20
)

// accounts reads who the container's users are.
func (e *Engine) accountsOf(c *container, layers []image.Digest, started bool) (accounts, error) {
	key := ""
	if !started && len(layers) > 0 {
		key = fmt.Sprint(len(layers), layers[len(layers)-1], c.imageID())
		e.accounts.mu.Lock()
		a, ok := e.accounts.byTop[key]
		e.accounts.mu.Unlock()
		if ok {
			return a, nil
		}
	}
	dirs, err := e.store.Layers.Lower(layers)
	if err != nil {
		return accounts{}, err
	}
	if started {
		dirs = append([]string{c.upper()}, dirs...)
	}
	var a accounts
	if len(dirs) > 0 {
		root, err := openLayers(dirs, e.cfg.Run)
		if err != nil {
			return a, err
		}
		defer root.Close()
		if a, err = readAccounts(root); err != nil {
			return a, err
		}
	}
	if key != "" {
		e.accounts.mu.Lock()
		if e.accounts.byTop == nil || len(e.accounts.byTop) >= maxAccounts {
			e.accounts.byTop = map[string]accounts{}
		}
		e.accounts.byTop[key] = a
		e.accounts.mu.Unlock()
	}
	return a, nil
}

func (c *container) imageID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.ImageID
}

func readAccounts(root *filetree.Root) (a accounts, err error) {
	for name, to := range map[string]*[]byte{"etc/passwd": &a.passwd, "etc/group": &a.group} {
		b, whole, err := root.ReadPrefix(name, maxAccountsSize)
		if err != nil && !filetree.NotExist(err) {
			return a, err
		}
		if !whole { // who stands further down is unknown; half a line is nobody
			b = b[:bytes.LastIndexByte(b, '\n')+1]
		}
		*to = b
	}
	return a, nil
}

// processRoot opens the root of a running process, as that process sees it.
func processRoot(pid int) (*filetree.Root, error) {
	fd, err := unix.Open(filepath.Join("/proc", strconv.Itoa(pid), "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("root of process %d: %w", pid, err)
	}
	return filetree.FromFD(fd, "container"), nil
}
