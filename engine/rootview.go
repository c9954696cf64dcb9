package engine

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/image"
	"cale/runtime/overlay"
)

// openLayers opens a tree made of directories (top first) for reading. It is a detached overlay mount no process can
// see; it goes with the descriptor.
func openLayers(dirs []string) (*filetree.Root, error) {
	if len(dirs) == 1 {
		return filetree.Open(dirs[0])
	}
	return openReading(overlay.Paths(dirs))
}

// openReading is openLayers for directories that overlay is to stack, several ones.
func openReading(layers []overlay.Dir) (*filetree.Root, error) {
	return openOverlay(&overlay.Mount{Lower: layers, Attrs: quietMount | unix.MOUNT_ATTR_RDONLY})
}

// openWritable is openLayers with a directory that gets what is written.
func openWritable(dirs []string, upper, work string) (*filetree.Root, error) {
	return openOverlay(&overlay.Mount{Lower: overlay.Paths(dirs), Upper: overlay.Dir{Path: upper}, Work: overlay.Dir{Path: work}, Attrs: quietMount})
}

// quietMount is a mount that nothing is executed from.
const quietMount = unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC

func openOverlay(m *overlay.Mount) (*filetree.Root, error) {
	f, err := m.Make()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("overlay: %w", err)
	}
	return filetree.FromFD(fd, "container"), nil
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
		root, err := openLayers(dirs)
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
