package engine

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"cale/filetree"
	"cale/layer"
)

// SnapshotOf is the label of a volume that VolumeSnapshot made, which names the volume it was made of.
const SnapshotOf = "cale.snapshot-of"

// VolumeSnapshotOptions say what becomes of a volume's copy.
type VolumeSnapshotOptions struct {
	Name    string // of the copy; "" makes one of the volume's name and the time
	Labels  map[string]string
	NoPause bool // containers that use the volume go on meanwhile
}

// VolumeSnapshot copies a volume, as it is at one moment, into a new one: blocks are shared where the file system can do
// that. Running containers that use the volume stand still meanwhile. The new volume is there whole or not at all.
func (e *Engine) VolumeSnapshot(ctx context.Context, name string, o VolumeSnapshotOptions) (v Volume, err error) {
	defer e.begin()()
	src, release, err := e.volumeTree(name)
	if err != nil {
		return v, err
	}
	defer release()
	if o.Name == "" {
		o.Name = name + "-" + time.Now().Format("20060102-150405")
	}
	labels := map[string]string{}
	for k, value := range o.Labels {
		labels[k] = value
	}
	labels[SnapshotOf] = name
	from, _, err := e.volumes.read(name)
	if err != nil {
		return v, err
	}
	var opts map[string]string
	if from.Options["device"] == "" { // what the device has is the copy's own
		opts = from.Options
	}
	if _, _, err := e.volumes.read(o.Name); err == nil {
		return v, conflict("a volume named %s exists already", o.Name)
	}
	if !o.NoPause {
		goOn, err := e.stillUsers(ctx, name)
		if err != nil {
			return v, err
		}
		defer func() {
			if e2 := goOn(); e2 != nil && err == nil {
				err = e2
			}
		}()
	}
	v, fresh, err := e.volumeCreate(o.Name, "", opts, labels, volumeFill{durable: true, fill: func(data *filetree.Root) error {
		return filetree.CopyTree(ctx, data, src, "")
	}})
	if err == nil && !fresh {
		err = conflict("a volume named %s exists already", o.Name)
	}
	if err != nil {
		return v, fmt.Errorf("snapshot of volume %s: %w", name, err)
	}
	return v, nil
}

// stillUsers freezes the running containers that have a volume mounted, until goOn.
func (e *Engine) stillUsers(ctx context.Context, name string) (goOn func() error, err error) {
	var undo []func() error
	goOn = func() (err error) {
		for _, f := range slices.Backward(undo) {
			if e2 := f(); err == nil {
				err = e2
			}
		}
		return err
	}
	defer func() {
		if err != nil {
			goOn()
		}
	}()
	for _, id := range e.volumes.users(name) { // sorted, so that two of these don't wait for each other
		c, err := e.find(id)
		if err != nil {
			continue // removed meanwhile
		}
		if !c.snapshots.TryLock() {
			return nil, conflict("a snapshot of container %s is being made", c.id)
		}
		undo = append(undo, func() error { c.snapshots.Unlock(); return nil })
		if err := c.op.lock(ctx); err != nil {
			return nil, err
		}
		undo = append(undo, func() error { c.op.unlock(); return nil })
		thaw, err := e.standStill(ctx, c, c.id)
		if err != nil {
			return nil, err
		}
		undo = append(undo, thaw)
	}
	return goOn, nil
}

// volumeTree opens a volume's files and keeps it from being removed until release.
func (e *Engine) volumeTree(name string) (data *filetree.Root, release func(), err error) {
	holder := "copy-" + strings.ToLower(rand.Text())
	e.volumes.hold(name, holder)
	defer func() {
		if err != nil {
			e.volumes.release(holder)
		}
	}()
	v, err := e.volumes.get(name)
	if err != nil {
		return nil, nil, err
	}
	at := v.Mountpoint
	if device := v.Options["device"]; device != "" {
		bind := slices.Contains(strings.Split(v.Options["o"], ","), "bind") || slices.Contains(strings.Split(v.Options["o"], ","), "rbind")
		if !bind {
			return nil, nil, fail(ErrUnsupported, "volume %s is the device %s (%s), which only containers mount: copy it by its own means", name, device, v.Options["type"])
		}
		at = device
	}
	if data, err = filetree.Open(at); err != nil {
		return nil, nil, fmt.Errorf("volume %s: %w", name, err)
	}
	return data, func() {
		data.Close()
		e.volumes.release(holder)
	}, nil
}

// VolumeExport writes a volume's files as a tar, its own directory's attributes too. Of files that change meanwhile there
// is one state each: a snapshot has all as they were at one moment.
func (e *Engine) VolumeExport(ctx context.Context, name string, w io.Writer) error {
	defer e.begin()()
	data, release, err := e.volumeTree(name)
	if err != nil {
		return err
	}
	defer release()
	if err := layer.Tar(ctx, w, data, layer.TarOptions{Name: "."}); err != nil {
		return fmt.Errorf("export volume %s: %w", name, err)
	}
	return nil
}

// VolumeImport unpacks a plain tar into a volume. One that isn't there is made, whole or not at all; in one that is,
// files are added and replaced, in use or not, and after an error some of them may be.
func (e *Engine) VolumeImport(ctx context.Context, name string, r io.Reader) (Volume, error) {
	defer e.begin()()
	unpack := func(data *filetree.Root, o layer.ExtractOptions) error {
		_, err := layer.Extract(ctx, data, r, o)
		if err != nil && ctx.Err() == nil {
			return invalid("%v", err)
		}
		return err
	}
	failed := func(err error) error { return fmt.Errorf("import volume %s: %w", name, err) }
	if _, _, err := e.volumes.read(name); err != nil {
		v, fresh, err := e.volumeCreate(name, "", nil, nil, volumeFill{durable: true, fill: func(data *filetree.Root) error {
			return unpack(data, layer.ExtractOptions{Root: true})
		}})
		if err == nil && !fresh {
			err = conflict("a volume named %s was made meanwhile", name)
		}
		if err != nil {
			return v, failed(err)
		}
		return v, nil
	}
	data, release, err := e.volumeTree(name)
	if err != nil {
		return Volume{}, err
	}
	defer release()
	if err := unpack(data, layer.ExtractOptions{}); err != nil {
		return Volume{}, failed(err)
	}
	return e.volumes.get(name)
}
