package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"cale/filetree"
	"cale/layer"
	"cale/shim"
)

// Names of what Snapshot writes, as checkpoint archives of Podman, CRI-O and containerd have them.
const (
	SnapshotImages = "checkpoint"      // the processes: a directory of CRIU's
	SnapshotFiles  = "rootfs-diff.tar" // what differs from the image, as a layer
	SnapshotSpec   = "spec.dump"       // the OCI configuration
	SnapshotLog    = "dump.log"        // CRIU's
)

// Snapshot saves a running container's processes and files, as they are at one moment, into a directory of the
// engine's, has them used, and removes them. The container stands still meanwhile, but not while they are used.
func (e *Engine) Snapshot(ctx context.Context, ref string, use func(dir string) error) error {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if !c.snapshots.TryLock() {
		return conflict("another snapshot of container %s is being made", c.id)
	}
	defer c.snapshots.Unlock()
	dir := filepath.Join(c.dir, "snapshot")
	defer removeTree(dir)
	if err := removeTree(dir); err != nil && !errors.Is(err, os.ErrNotExist) { // of an engine that was killed
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("snapshot of container %s: %w", c.id, err)
	}
	if err := e.snapshot(ctx, c, dir); err != nil {
		return fmt.Errorf("snapshot of container %s: %w", c.id, err)
	}
	return use(dir)
}

func (e *Engine) snapshot(ctx context.Context, c *container, dir string) (err error) {
	// Nobody stops, pauses or removes it meanwhile.
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	r, err := c.running()
	if err != nil {
		return err
	}
	c.mu.Lock()
	paused := c.rec.State.Status == Paused
	c.mu.Unlock()
	if !paused {
		if err := r.shim.Pause(ctx, c.id); err != nil {
			return err
		}
		defer func() {
			if e2 := r.shim.Resume(context.WithoutCancel(ctx), c.id); e2 != nil && err == nil && !gone(e2) {
				err = e2
			}
		}()
	}
	images := shim.CheckpointRequest{Path: filepath.Join(dir, SnapshotImages), WorkPath: dir}
	if err := r.shim.Checkpoint(ctx, c.id, images); err != nil {
		return err
	}
	if err := c.writeDiff(ctx, filepath.Join(dir, SnapshotFiles)); err != nil {
		return err
	}
	spec, err := os.ReadFile(filepath.Join(c.pod, "config.json"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, SnapshotSpec), spec, 0o600)
}

// writeDiff writes what a container has changed as a layer.
func (c *container) writeDiff(ctx context.Context, file string) (err error) {
	upper, err := filetree.Open(c.upper())
	if err != nil {
		return err
	}
	defer upper.Close()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return layer.Diff(ctx, io.Writer(f), upper)
}
