package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cale/atomicfile"
	"cale/filetree"
)

// volumes are the stores of files below one directory: <name>/_data and <name>/volume.json.
type volumes struct {
	dir string

	mu   sync.Mutex
	refs map[string]map[string]int // volume to container ids, with how often each mounts it

	filling sync.Mutex // held to fill a volume that other containers name too
}

func (v *volumes) open(dir string) {
	v.dir = dir
	v.refs = map[string]map[string]int{}
}

type volumeRecord struct {
	Created   time.Time         `json:"created"`
	Labels    map[string]string `json:"labels,omitempty"`
	Options   map[string]string `json:"options,omitempty"`
	Anonymous bool              `json:"anonymous,omitempty"`
	Disk      int64             `json:"disk,omitempty"` // the bound of a file system of its own
}

func (v *volumes) data(name string) string { return filepath.Join(v.dir, name, "_data") }

// hold keeps a volume from being removed while a container names it.
func (v *volumes) hold(name, id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.refs[name] == nil {
		v.refs[name] = map[string]int{}
	}
	v.refs[name][id]++
}

// drop forgets one of the times that a container mounts a volume.
func (v *volumes) drop(name, id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	ids := v.refs[name]
	if ids == nil {
		return
	}
	if ids[id]--; ids[id] <= 0 {
		delete(ids, id)
	}
	if len(ids) == 0 {
		delete(v.refs, name)
	}
}

// settle has a container hold what it mounts, as often as it does, and nothing else.
func (v *volumes) settle(id string, mounts []Mount) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, ids := range v.refs {
		delete(ids, id)
	}
	for _, m := range mounts {
		if m.Type != "volume" {
			continue
		}
		if v.refs[m.Source] == nil {
			v.refs[m.Source] = map[string]int{}
		}
		v.refs[m.Source][id]++
	}
	maps.DeleteFunc(v.refs, func(_ string, ids map[string]int) bool { return len(ids) == 0 })
}

// release forgets all that a container holds.
func (v *volumes) release(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, ids := range v.refs {
		delete(ids, id)
		if len(ids) == 0 {
			delete(v.refs, name)
		}
	}
}

func (v *volumes) users(name string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(maps.Keys(v.refs[name]))
}

// get gives one volume, ready for use.
func (v *volumes) get(name string) (Volume, error) {
	vol, disk, err := v.read(name)
	if err == nil && disk > 0 {
		err = v.mount(name)
	}
	return vol, err
}

// mount mounts a volume's own file system.
func (v *volumes) mount(name string) error {
	err := mountImage(filepath.Join(v.dir, name, diskImage), v.data(name))
	if err == nil {
		return nil
	}
	if _, _, gone := v.read(name); gone != nil {
		return gone // removed meanwhile
	}
	return fmt.Errorf("volume %s: %w", name, err)
}

// read reads one volume's record; disk is the bound of its own file system, 0 if it has none.
func (v *volumes) read(name string) (vol Volume, disk int64, err error) {
	if !validName.MatchString(name) {
		return vol, 0, notFound("get %s: no such volume", name)
	}
	raw, err := os.ReadFile(filepath.Join(v.dir, name, "volume.json"))
	if errors.Is(err, os.ErrNotExist) {
		return vol, 0, notFound("get %s: no such volume", name)
	}
	if err != nil {
		return vol, 0, fmt.Errorf("volume %s: %w", name, err)
	}
	var r volumeRecord
	if err := json.Unmarshal(raw, &r); err != nil {
		return vol, 0, fmt.Errorf("volume %s: %w", name, err)
	}
	return Volume{Name: name, Driver: "local", Mountpoint: v.data(name), Created: r.Created, Labels: r.Labels,
		Options: r.Options, Anonymous: r.Anonymous}, r.Disk, nil
}

// volumeFill is what a new volume begins with.
type volumeFill struct {
	durable bool                            // wait for the disk
	fill    func(data *filetree.Root) error // may be nil
}

func (f volumeFill) into(dir string, root volumeRoot) error {
	if err := root.apply(dir); err != nil || f.fill == nil {
		return err
	}
	data, err := filetree.Open(dir)
	if err != nil {
		return err
	}
	defer data.Close()
	if err := f.fill(data); err != nil || !f.durable {
		return err
	}
	own, err := os.Open(dir) // data's own descriptor is for paths only
	if err != nil {
		return err
	}
	defer own.Close()
	return unix.Syncfs(int(own.Fd()))
}

// make creates a volume, complete at once; one that is there already is taken (fresh is false then).
func (v *volumes) make(name string, r volumeRecord, root volumeRoot, with volumeFill) (fresh bool, err error) {
	tmp, err := os.MkdirTemp(v.dir, ".new-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp) // gone already if it became the volume
	data := filepath.Join(tmp, "_data")
	if err := mkdir(data, 0o755); err != nil {
		return false, err
	}
	if r.Disk > 0 {
		image := filepath.Join(tmp, diskImage)
		if err := makeImage(context.Background(), image, r.Disk); err != nil {
			return false, err
		}
		if err := mountImage(image, data); err != nil {
			return false, err
		}
		err := with.into(data, root)
		if err = errors.Join(err, unmount(data)); err != nil {
			return false, err
		}
	} else if err := with.into(data, root); err != nil {
		return false, err
	}
	if err := os.Chmod(tmp, 0o701); err != nil {
		return false, err
	}
	raw, err := json.Marshal(&r)
	if err != nil {
		return false, err
	}
	if err := atomicfile.Write(filepath.Join(tmp, "volume.json"), raw, 0o600, with.durable); err != nil {
		return false, err
	}
	err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, filepath.Join(v.dir, name), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err == nil && with.durable {
		err = atomicfile.SyncDir(v.dir)
	}
	return err == nil, err
}

// VolumeCreate makes a volume, or gives the one that is there. An empty name chooses one: an anonymous volume.
func (e *Engine) VolumeCreate(ctx context.Context, name, driver string, opts, labels map[string]string) (Volume, error) {
	v, _, err := e.volumeCreate(name, driver, opts, labels, volumeFill{durable: true})
	return v, err
}

func (e *Engine) volumeCreate(name, driver string, opts, labels map[string]string, with volumeFill) (v Volume, fresh bool, err error) {
	if driver != "" && driver != "local" {
		return v, false, notFound("error looking up volume plugin %s: plugin %q not found", driver, driver)
	}
	r := volumeRecord{Created: time.Now(), Labels: labels, Options: opts}
	for k, value := range opts {
		switch k {
		case "type", "o", "device":
		case "size":
			if r.Disk, err = parseDisk(value); err != nil {
				return v, false, err
			}
		default:
			return v, false, invalid("create %s: invalid option: %q", name, k)
		}
	}
	var root volumeRoot
	if opts["device"] == "" && opts["o"] != "" {
		if root, err = parseVolumeRoot(opts["o"]); err != nil {
			return v, false, fmt.Errorf("create %s: %w", name, err)
		}
	}
	switch {
	case r.Disk > 0 && opts["device"] != "":
		return v, false, invalid("create %s: a volume with a device has that device's size", name)
	case opts["type"] != "" && opts["device"] == "":
		return v, false, invalid("create %s: missing required option: \"device\"", name)
	case opts["type"] == "" && opts["device"] != "":
		return v, false, invalid("create %s: missing required option: \"type\"", name)
	}
	if name == "" {
		raw := make([]byte, 32)
		rand.Read(raw)
		name = hex.EncodeToString(raw)
		r.Anonymous = true
		r.Labels = maps.Clone(labels)
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		r.Labels["com.docker.volume.anonymous"] = ""
	} else if !validName.MatchString(name) || len(name) > 255 {
		return v, false, invalid(`create %s: %q includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`, name, name)
	}
	if fresh, err = e.volumes.make(name, r, root, with); err != nil {
		return v, false, fmt.Errorf("create volume %s: %w", name, err)
	}
	if v, err = e.volumes.get(name); err != nil {
		return v, false, err
	}
	if !fresh && len(opts) > 0 && !maps.Equal(opts, v.Options) {
		return v, false, conflict("a volume named %s exists already with other options", name)
	}
	if fresh {
		e.emitOther("volume", "create", name, "driver", "local")
	}
	return v, fresh, nil
}

// Volumes lists all volumes by name.
func (e *Engine) Volumes(ctx context.Context) ([]Volume, error) {
	entries, err := os.ReadDir(e.volumes.dir)
	if err != nil {
		return nil, fmt.Errorf("volumes: %w", err)
	}
	var list []Volume
	for _, d := range entries {
		if strings.HasPrefix(d.Name(), ".") || !d.IsDir() {
			continue
		}
		v, disk, err := e.volumes.read(d.Name())
		if err == nil && disk > 0 {
			if err = e.volumes.mount(v.Name); err != nil && !errors.Is(err, ErrNotFound) {
				e.cfg.Log("%v", err) // it is there, and can be removed
				err = nil
			}
		}
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// Volume gives one volume.
func (e *Engine) Volume(ctx context.Context, name string) (Volume, error) { return e.volumes.get(name) }

// VolumeRemove removes a volume no container names. force makes a missing one no error.
func (e *Engine) VolumeRemove(ctx context.Context, name string, force bool) error {
	if _, _, err := e.volumes.read(name); err != nil {
		if force && errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}
	v := &e.volumes
	v.mu.Lock()
	users := slices.Sorted(maps.Keys(v.refs[name]))
	var away string
	var err error
	if len(users) == 0 {
		// One rename, so it may be done under the lock: nobody can take the volume up meanwhile.
		mounting.Lock()
		if err = unmount(v.data(name)); err == nil {
			away, err = e.toTrash(filepath.Join(v.dir, name))
		}
		mounting.Unlock()
	}
	v.mu.Unlock()
	if len(users) > 0 {
		return conflict("remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
	}
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	e.burn(away)
	e.emitOther("volume", "destroy", name, "driver", "local")
	return nil
}

// PruneVolumes removes unused volumes: anonymous ones, or all.
func (e *Engine) PruneVolumes(ctx context.Context, all bool, match func(Volume) bool) (Pruned, error) {
	defer e.begin()()
	var p Pruned
	list, err := e.Volumes(ctx)
	if err != nil {
		return p, err
	}
	for _, v := range list {
		if ctx.Err() != nil {
			return p, ctx.Err()
		}
		if !all && !v.Anonymous || match != nil && !match(v) || len(e.volumes.users(v.Name)) > 0 {
			continue
		}
		size := treeSize(v.Mountpoint)
		switch err := e.VolumeRemove(ctx, v.Name, false); {
		case errors.Is(err, ErrConflict), errors.Is(err, ErrNotFound):
		case err != nil:
			return p, err
		default:
			p.IDs = append(p.IDs, v.Name)
			p.Bytes += size
		}
	}
	e.emitOther("volume", "prune", "", "reclaimed", fmt.Sprint(p.Bytes))
	return p, nil
}

// toTrash moves a directory where the next start empties it, if we don't get to it. The rename is what removes.
func (e *Engine) toTrash(path string) (string, error) {
	raw := make([]byte, 8)
	rand.Read(raw)
	away := filepath.Join(e.cfg.Root, "trash", hex.EncodeToString(raw))
	if err := os.Rename(path, away); err != nil {
		return "", err
	}
	return away, nil
}

// removeTree removes a directory and what is below it, but nothing that is mounted there: that is left alone, and an
// error.
func removeTree(path string) error {
	parent, err := filetree.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.RemoveAll(filepath.Base(path))
}

// burn deletes what toTrash moved; big trees take long, and nobody has to wait for that.
func (e *Engine) burn(away string) {
	if away == "" {
		return
	}
	e.trash.Add(1)
	go func() {
		defer e.trash.Done()
		if err := removeTree(away); err != nil {
			e.cfg.Log("remove %s: %v", away, err)
		}
	}()
}
