package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/image/store"
)

// maxVolumes bounds the volumes that are made for an image's VOLUMEs.
const maxVolumes = 1000

// resolveMounts settles a new container's mounts: makes its volumes, fills the fresh ones from the image, and adds
// the image's VOLUMEs that nothing else covers. made are the volumes that did not exist before.
func (e *Engine) resolveMounts(ctx context.Context, c *container, img *store.Image) (mounts []Mount, made []string, err error) {
	s := &c.rec.Spec
	taken := map[string]bool{}
	defer func() {
		if err != nil {
			e.volumes.release(c.id)
		}
	}()
	inherited, err := e.volumesFrom(s.VolumesFrom)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range s.Mounts {
		m.FromImage, m.Anonymous, m.Layers = false, false, nil // these are not the client's to say
		if err := checkMount(&m); err != nil {
			return nil, nil, err
		}
		if err := e.shieldRoot(&m); err != nil {
			return nil, nil, err
		}
		if taken[m.Target] {
			return nil, nil, invalid("Duplicate mount point: %s", m.Target)
		}
		taken[m.Target] = true
		if m.Type == "image" {
			if err := e.takeImage(ctx, c, &m); err != nil {
				return nil, nil, err
			}
		}
		mounts = append(mounts, m)
	}
	for target := range s.Tmpfs {
		clean := path.Clean(target)
		if err := checkTarget("tmpfs", target); err != nil {
			return nil, nil, err
		}
		if taken[clean] {
			return nil, nil, invalid("Duplicate mount point: %s", clean)
		}
		taken[clean] = true
	}
	slices.Reverse(inherited) // of two with the same target the later one counts
	for _, m := range inherited {
		if !taken[m.Target] { // what the container says itself wins
			taken[m.Target] = true
			mounts = append(mounts, m)
		}
	}
	if n := len(c.rec.Run.Volumes); n > maxVolumes {
		return nil, nil, invalid("the image and the request name %d volumes, more than %d", n, maxVolumes)
	}
	for _, target := range c.rec.Run.Volumes {
		if !taken[target] {
			taken[target] = true
			mounts = append(mounts, Mount{Type: "volume", Target: target, FromImage: true})
		}
	}
	for i := range mounts {
		m := &mounts[i]
		if m.Type != "volume" {
			continue
		}
		fresh, err := e.takeVolume(ctx, c, img, m)
		if fresh {
			made = append(made, m.Source)
		}
		if err != nil {
			return nil, made, err
		}
	}
	return mounts, made, nil
}

// takeVolume makes a mount's volume, if it isn't there (fresh), keeps it for the container, and fills an empty one with
// what the image has at the target.
func (e *Engine) takeVolume(ctx context.Context, c *container, img *store.Image, m *Mount) (fresh bool, err error) {
	name := m.Source
	v, fresh, err := e.volumeCreate(name, m.Driver, m.DriverOpts, m.Labels, volumeFill{durable: c.keep() || name != ""})
	if err != nil {
		return false, err
	}
	m.Source, m.Anonymous = v.Name, m.Anonymous || name == ""
	e.volumes.hold(v.Name, c.id)
	defer func() {
		if err != nil {
			e.volumes.drop(v.Name, c.id)
		}
	}()
	if _, err := e.volumes.get(v.Name); err != nil {
		return false, err // removed between creation and hold
	}
	if m.NoCopy || v.Options["device"] != "" {
		return fresh, nil
	}
	fill := e.fillVolume
	if m.Subpath != "" {
		fill = e.fillSubpath
	}
	if err := fill(ctx, v, img, m); err != nil {
		return fresh, fmt.Errorf("volume %s: copy from the image: %w", v.Name, err)
	}
	return fresh, nil
}

func checkMount(m *Mount) error {
	if err := checkTarget(m.Type, m.Target); err != nil {
		return err
	}
	m.Target = path.Clean(m.Target)
	switch m.Type {
	case "bind":
		if !filepath.IsAbs(m.Source) {
			return invalid("invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be absolute", m.Source)
		}
		m.Source = filepath.Clean(m.Source)
		if _, err := os.Lstat(m.Source); errors.Is(err, os.ErrNotExist) && !m.CreateSource {
			return invalid("invalid mount config for type \"bind\": bind source path does not exist: %s", m.Source)
		}
		switch m.Propagation {
		case "", "private", "rprivate", "shared", "rshared", "slave", "rslave":
		default:
			return invalid("invalid mount config for type \"bind\": invalid propagation mode: %s", m.Propagation)
		}
	case "volume":
		if m.Propagation != "" {
			return invalid("invalid mount config for type \"volume\": field BindOptions must not be specified")
		}
		if m.Subpath != "" && m.Source == "" {
			return invalid("invalid mount config for type \"volume\": must not set Subpath when using anonymous volumes")
		}
		if m.Subpath != "" && !filepath.IsLocal(m.Subpath) {
			return invalid("invalid mount config for type \"volume\": subpath must be a relative path within the volume: %q is not", m.Subpath)
		}
	case "image":
		if m.Source == "" {
			return invalid("invalid mount config for type \"image\": field Source must not be empty")
		}
		if m.Subpath != "" && !filepath.IsLocal(m.Subpath) {
			return invalid("invalid mount config for type \"image\": subpath must be a relative path within the volume: %q is not", m.Subpath)
		}
	case "tmpfs":
		if m.Source != "" {
			return invalid(`invalid mount config for type "tmpfs": field Source must not be specified`)
		}
	case "":
		return invalid("invalid mount config: type is required")
	default:
		return invalid("mount type unknown: %q", m.Type)
	}
	return nil
}

// checkTarget refuses what nothing can be mounted on.
func checkTarget(kind, target string) error {
	if target == "" {
		return invalid("invalid mount config for type %q: field Target must not be empty", kind)
	}
	if !path.IsAbs(target) {
		return invalid("invalid mount config for type %q: invalid mount path: '%s' mount path must be absolute", kind, target)
	}
	if path.Clean(target) == "/" {
		return invalid("invalid mount config for type %q: invalid specification: destination can't be '/'", kind)
	}
	return nil
}

// shieldRoot looks after binds that show our own folders: what the engine mounts there would stay mounted for as long
// as the container has its copy, unless taking it away is passed on.
func (e *Engine) shieldRoot(m *Mount) error {
	if m.Type != "bind" || !within(m.Source, e.cfg.Root) && !within(e.cfg.Root, m.Source) {
		return nil
	}
	switch m.Propagation {
	case "":
		m.Propagation = "rslave"
	case "rslave", "rshared":
	default:
		return invalid("invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within the daemon root, daemon root: %q, bind mount source: %q, propagation: %q", e.cfg.Root, m.Source, m.Propagation)
	}
	return nil
}

// within says whether a clean path is dir or lies in it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// volumesFrom collects the mounts of other containers.
func (e *Engine) volumesFrom(refs []string) ([]Mount, error) {
	var out []Mount
	for _, spec := range refs {
		ref, mode, _ := strings.Cut(spec, ":")
		readOnly := false
		switch mode {
		case "", "rw", "z", "Z":
		case "ro":
			readOnly = true
		default:
			return nil, invalid("invalid mode: %s", mode)
		}
		other, err := e.find(ref)
		if err != nil {
			return nil, invalid("%v", err) // of the request, not of what it asks for
		}
		other.mu.Lock()
		for _, m := range other.rec.Mounts {
			if m.Type == "tmpfs" || m.Type == "image" {
				continue
			}
			m.ReadOnly = m.ReadOnly || readOnly
			m.NoCopy, m.FromImage = true, false
			out = append(out, m)
		}
		other.mu.Unlock()
	}
	return out, nil
}

// fillVolume copies what the image has at target into an empty volume, all at once.
func (e *Engine) fillVolume(ctx context.Context, v Volume, img *store.Image, m *Mount) error {
	if entries, err := os.ReadDir(v.Mountpoint); err != nil || len(entries) > 0 {
		return err
	}
	root, err := e.imageDir(img, m.Target)
	if err != nil || root == nil {
		return err
	}
	defer root.Close()
	tmp, err := os.MkdirTemp(filepath.Dir(v.Mountpoint), ".fill-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // gone already if it became the volume
	dst, err := filetree.Open(tmp)
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := filetree.CopyTree(ctx, dst, root, m.Target); err != nil {
		return err
	}
	// Renaming a directory over an empty one is atomic, but who has the empty one mounted would be left with a
	// directory that is gone.
	if len(v.Options) == 0 { // else it is a mount, or has an owner of its own
		if done, err := e.volumes.replace(v.Name, tmp); done || err != nil {
			return err
		}
	}
	e.volumes.filling.Lock()
	defer e.volumes.filling.Unlock()
	if entries, err := os.ReadDir(v.Mountpoint); err != nil || len(entries) > 0 {
		return err // somebody wrote into it meanwhile: that stays
	}
	data, err := filetree.Open(v.Mountpoint)
	if err != nil {
		return err
	}
	defer data.Close()
	if err := filetree.CopyTree(ctx, data, dst, ""); err != nil || v.Options["o"] == "" {
		return err
	}
	own, err := parseVolumeRoot(v.Options["o"])
	if err != nil {
		return err
	}
	return own.apply(v.Mountpoint)
}

// imageDir opens an image's tree, nil if it has no directory target. That name comes from the image perhaps: it is
// looked up in the image's tree only (CVE-2022-23648).
func (e *Engine) imageDir(img *store.Image, target string) (*filetree.Root, error) {
	dirs, err := e.store.Layers.Lower(img.Config.DiffIDs)
	if err != nil || len(dirs) == 0 {
		return nil, err
	}
	root, err := openLayers(dirs)
	if err != nil {
		return nil, err
	}
	st, err := root.Stat(target)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		root.Close()
		if filetree.NotExist(err) {
			err = nil
		}
		return nil, err
	}
	return root, nil
}

// fillSubpath copies what the image has at the target into an empty directory of a volume. One that is not there is
// told when the container starts.
func (e *Engine) fillSubpath(ctx context.Context, v Volume, img *store.Image, m *Mount) error {
	fd, err := openSubpath(v.Mountpoint, m.Subpath)
	if err != nil {
		return nil
	}
	dst := filetree.FromFD(fd, m.Subpath)
	defer dst.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	root, err := e.imageDir(img, m.Target)
	if err != nil || root == nil {
		return err
	}
	defer root.Close()
	e.volumes.filling.Lock()
	defer e.volumes.filling.Unlock()
	err = dst.Walk("", func(en *filetree.Entry) error {
		if en.Path != "" {
			return fs.SkipAll
		}
		return nil
	})
	if err == fs.SkipAll {
		return nil // what is there stays
	}
	if err != nil {
		return err
	}
	return filetree.CopyTree(ctx, dst, root, m.Target)
}

// replace puts a directory in the place of a volume's empty one, if but one container names the volume.
func (v *volumes) replace(name, dir string) (done bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.refs[name]) > 1 {
		return false, nil
	}
	err = unix.Rename(dir, v.data(name))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		err = nil // somebody wrote into it meanwhile: that stays
	}
	return err == nil, err
}
