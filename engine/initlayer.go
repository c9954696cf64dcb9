package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/image"
)

// Between an image and each container's own directory lies one more layer, the same for all: the directories and
// empty files that something is always mounted on. So a start makes nothing in the container's directory, and what
// is found there later was done by the container.

const initVersion = "1"

// openInit makes the layer if it isn't there.
func (e *Engine) openInit() error {
	e.initDir = filepath.Join(e.cfg.Root, "init", initVersion)
	if _, err := os.Lstat(e.initDir); err == nil {
		return nil
	}
	base := filepath.Dir(e.initDir)
	if err := os.MkdirAll(base, 0o700); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	tmp, err := os.MkdirTemp(base, ".new-")
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	defer os.RemoveAll(tmp) // gone already if all went well
	if err := fillInit(tmp); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if err := os.Rename(tmp, e.initDir); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}

func fillInit(dir string) error {
	for _, d := range []string{"dev", "dev/pts", "dev/shm", "dev/mqueue", "proc", "sys", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, f := range []string{"etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv", "dev/console"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			return err
		}
	}
	if err := os.Symlink("/proc/mounts", filepath.Join(dir, "etc/mtab")); err != nil {
		return err
	}
	// The modes are those of a system, whatever our umask is.
	for _, d := range []string{"dev", "dev/pts", "dev/shm", "dev/mqueue", "proc", "sys", "etc", ""} {
		if err := os.Chmod(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(filepath.Join(dir, ".dockerenv"), 0o755)
}

// fitsInit says whether an image can have that layer over it: its own directories of these names must be
// directories, or nothing.
func (e *Engine) fitsInit(layers []image.Digest) (bool, error) {
	dirs, err := e.store.Layers.Lower(layers)
	if err != nil {
		return false, err
	}
	if len(dirs) == 0 {
		return true, nil
	}
	root, err := openLayers(dirs)
	if err != nil {
		return false, err
	}
	defer root.Close()
	for _, name := range []string{"dev", "proc", "sys", "etc"} {
		st, err := root.Lstat(name)
		switch {
		case filetree.NotExist(err):
		case err != nil:
			return false, err
		case st.Mode&unix.S_IFMT != unix.S_IFDIR, st.Mode&0o7777 != 0o755, st.Uid != 0, st.Gid != 0:
			return false, nil
		}
	}
	return true, nil
}

// lowers lists the directories below a container's own, the top one first.
func (e *Engine) lowers(rec *record) ([]string, error) {
	dirs, err := e.store.Layers.Lower(rec.Layers)
	if err != nil {
		return nil, fmt.Errorf("layers of container %s: %w", rec.ID, err)
	}
	if rec.Init || len(dirs) == 0 {
		dirs = append([]string{e.initDir}, dirs...)
	}
	return dirs, nil
}
