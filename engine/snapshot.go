package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

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

// Snapshot saves running containers' processes and files, as they all are at one moment, into a directory of the
// engine's for each, has them used, and removes them. The containers stand still meanwhile, but not while they are
// used.
func (e *Engine) Snapshot(ctx context.Context, refs []string, use func(dirs []string) error) error {
	defer e.begin()()
	list := make([]*container, len(refs))
	dirs := make([]string, len(refs))
	for i, ref := range refs {
		c, err := e.find(ref)
		if err != nil {
			return err
		}
		if !c.snapshots.TryLock() {
			return conflict("another snapshot of container %s is being made", c.id)
		}
		defer c.snapshots.Unlock()
		list[i], dirs[i] = c, filepath.Join(c.dir, "snapshot")
		defer removeTree(dirs[i])
		if err := removeTree(dirs[i]); err != nil && !errors.Is(err, os.ErrNotExist) { // of an engine that was killed
			return err
		}
		if err := os.Mkdir(dirs[i], 0o700); err != nil {
			return fmt.Errorf("snapshot of container %s: %w", c.id, err)
		}
	}
	if err := e.snapshot(ctx, list, dirs); err != nil {
		return err
	}
	return use(dirs)
}

// snapshot stops all, saves all, and lets all go on.
func (e *Engine) snapshot(ctx context.Context, list []*container, dirs []string) (err error) {
	// Nobody else holds several: who holds one waits for none of the others.
	runs := make([]*run, len(list))
	for i, c := range list {
		failed := func(err error) error { return fmt.Errorf("snapshot of container %s: %w", c.id, err) }
		if err := c.op.lock(ctx); err != nil {
			return failed(err)
		}
		defer c.op.unlock()
		if runs[i], err = c.running(); err != nil {
			return failed(err)
		}
		if c.paused() {
			continue
		}
		if err := c.markStill(); err != nil {
			return failed(err)
		}
		// Not given up half way: it would stay frozen.
		if err := runs[i].shim.Pause(context.WithoutCancel(ctx), c.id); err != nil {
			return failed(errors.Join(err, c.unmarkStill()))
		}
		defer func() {
			defer c.unmarkStill()
			if e2 := runs[i].shim.Resume(context.WithoutCancel(ctx), c.id); e2 != nil && err == nil && !gone(e2) {
				err = failed(e2)
			}
		}()
	}
	for i, c := range list {
		if err := c.saveInto(ctx, runs[i], dirs[i]); err != nil {
			return fmt.Errorf("snapshot of container %s: %w", c.id, err)
		}
	}
	return nil
}

func (c *container) paused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.State.Status == Paused
}

// saveInto writes a snapshot of a container that stands still.
func (c *container) saveInto(ctx context.Context, r *run, dir string) error {
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

// snapshotName is the checkpoint that a container's first start goes on from, if it was made of a snapshot.
const snapshotName = "snapshot"

// Saved is a container that takes a snapshot over.
type Saved struct {
	c      *container
	images string
}

// LoadSnapshot gives a container that was never started the files and the processes of a snapshot, which load hands
// over; Start then goes on from there. Its Spec decides what of the host the container gets, and the runtime refuses a
// snapshot whose processes have more. Still CRIU reads the images as root and mounts, opens and sets what they say: who
// may hand one over must be trusted like root. After an error the container is of no use.
func (e *Engine) LoadSnapshot(ctx context.Context, ref string, load func(s *Saved) error) error {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	c.mu.Lock()
	fresh := c.run == nil && c.rec.State.Status == Created && !c.rec.Snapshot
	c.mu.Unlock()
	if !fresh {
		return conflict("container %s has files of its own already", c.id)
	}
	dir, err := c.checkpointDir("")
	if err != nil {
		return err
	}
	s := &Saved{c: c, images: filepath.Join(dir, "."+snapshotName+".partial")}
	if err := os.MkdirAll(s.images, 0o700); err != nil {
		return fmt.Errorf("container %s: %w", c.id, err)
	}
	if err = load(s); err == nil {
		err = os.Rename(s.images, filepath.Join(dir, snapshotName))
	}
	if err != nil {
		return fmt.Errorf("container %s: load a snapshot: %w", c.id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rec.Snapshot = true
	return c.save(false)
}

// Files takes what differs from the image, as a layer.
func (s *Saved) Files(ctx context.Context, r io.Reader) error {
	upper, err := filetree.Open(s.c.upper())
	if err != nil {
		return err
	}
	defer upper.Close()
	got, err := layer.Extract(ctx, upper, r, layer.ExtractOptions{Layer: true})
	if err == nil && got.Opaque {
		err = invalid("the files of a snapshot hide all of the image")
	}
	return err
}

// Image takes one of CRIU's files.
func (s *Saved) Image(name string, r io.Reader) error {
	if !imageName.MatchString(name) {
		return invalid("a snapshot has a file %q where CRIU's are", name)
	}
	f, err := os.OpenFile(filepath.Join(s.images, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// imageName is what CRIU calls its files.
var imageName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,200}$`)
