package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"cale/image"
	"cale/runtime/overlay"
)

// takeImage settles a mount of an image's content: it is unpacked, and kept for as long as the container is there.
func (e *Engine) takeImage(ctx context.Context, c *container, m *Mount) error {
	img, _, err := e.resolveImage(m.Source, "")
	if err != nil {
		return err
	}
	keep := slices.Concat(e.store.Leases()[c.id], []image.Digest{img.ManifestDescriptor.Digest, img.ID})
	if err := e.store.AddLease(c.id, keep...); err != nil {
		return err
	}
	if err := e.unpack(ctx, img); err != nil {
		return fmt.Errorf("image %s: %w", m.Source, err)
	}
	m.Layers = img.Config.DiffIDs
	return nil
}

// pinImage mounts an image's content, or a part of it, below the pod and gives the path.
func (e *Engine) pinImage(c *container, i int, m *Mount) (string, error) {
	dirs, err := e.store.Layers.Lower(m.Layers)
	if err != nil {
		return "", err
	}
	whole := ""
	switch len(dirs) {
	case 0:
		return "", invalid("image %s has no content to mount", m.Source)
	case 1:
		whole = dirs[0]
	default:
		whole = filepath.Join(c.pod, subpaths, "image"+strconv.Itoa(i))
		if err := os.MkdirAll(whole, 0o700); err != nil {
			return "", err
		}
		layers := overlay.Paths(dirs)
		if c.idMap() != nil {
			mapped, done, err := mappedDirs(dirs, c.userNS())
			if err != nil {
				return "", fmt.Errorf("mount image %s: %w", m.Source, err)
			}
			defer done()
			layers = mapped
		}
		root, err := openReading(layers)
		if err != nil {
			return "", err
		}
		defer root.Close()
		if err := unix.MoveMount(root.FD(), "", unix.AT_FDCWD, whole, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return "", fmt.Errorf("mount image %s: %w", m.Source, err)
		}
	}
	if m.Subpath == "" {
		return whole, nil
	}
	return c.pinSubpath(i, whole, m.Subpath)
}

// ImageHas says whether an image, which is unpacked for it, has a path, and why not. Links lead nowhere out of it.
func (e *Engine) ImageHas(ctx context.Context, ref, path string) error {
	img, _, err := e.resolveImage(ref, "")
	if err != nil {
		return err
	}
	if err := e.unpack(ctx, img); err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	root, err := e.imageDir(img, "")
	if err != nil {
		return err
	}
	if root == nil {
		return invalid("image %s has no content", ref)
	}
	defer root.Close()
	if _, err := root.Stat(path); err != nil {
		return invalid("image %s has no subpath %q: %v", ref, path, err)
	}
	return nil
}
