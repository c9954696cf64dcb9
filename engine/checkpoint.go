package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cale/runtime/criu"
	"cale/shim"
)

// CheckpointOptions says where a container's state is to be saved. Dir is a directory of the host that holds
// checkpoints by name; "" is the container's own, which goes when it is removed.
type CheckpointOptions struct {
	Name, Dir string
	Exit      bool // ends the container
}

// CanCheckpoint says whether CRIU was there when it was first asked. Docker's clients offer checkpoints only where the
// engine says that it is "experimental".
var CanCheckpoint = sync.OnceValue(func() bool { return criu.Installed() == nil })

// checkpointName is what Docker takes as one.
var checkpointName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// checkpointDir is where a container's checkpoints are.
func (c *container) checkpointDir(dir string) (string, error) {
	if dir == "" {
		return filepath.Join(c.dir, "checkpoints"), nil
	}
	if !filepath.IsAbs(dir) {
		return "", invalid("checkpoint directory %s: the path must be absolute", dir)
	}
	return dir, nil
}

func checkCheckpointName(name string) error {
	if !checkpointName.MatchString(name) {
		return invalid("invalid checkpoint ID %q, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

// findCheckpoint is the path of a checkpoint that is there.
func (c *container) findCheckpoint(name, dir string) (string, error) {
	dir, err := c.checkpointDir(dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	if st, err := os.Lstat(path); err != nil || !st.IsDir() {
		return "", notFound("checkpoint %s does not exist for container %s", name, c.name())
	}
	return path, nil
}

// Checkpoint saves a running container's processes to files, from which Start makes it go on.
func (e *Engine) Checkpoint(ctx context.Context, ref string, o CheckpointOptions) error {
	defer e.begin()()
	if err := checkCheckpointName(o.Name); err != nil {
		return err
	}
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	dir, err := c.checkpointDir(o.Dir)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, o.Name)
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	r, err := e.checkpoint(context.WithoutCancel(ctx), c, path, o.Exit)
	c.op.unlock()
	if err != nil {
		return err
	}
	e.emit(c, "checkpoint")
	if o.Exit {
		// What follows is to find it ended.
		select {
		case <-r.done:
		case <-ctx.Done():
		}
	}
	return nil
}

// checkpoint saves a container whose op lock is held. The name is there only when all below it is.
func (e *Engine) checkpoint(ctx context.Context, c *container, path string, exit bool) (*run, error) {
	r, err := c.running()
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, conflict("checkpoint with name %s already exists for container %s", filepath.Base(path), c.name())
	}
	partial := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".partial")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("checkpoint of container %s: %w", c.id, err)
	}
	if err := os.RemoveAll(partial); err != nil { // of an engine that was killed
		return nil, fmt.Errorf("checkpoint of container %s: %w", c.id, err)
	}
	if exit {
		c.setStopped(true) // as by a client's stop: restart policies keep away
	}
	err = r.shim.Checkpoint(ctx, c.id, shim.CheckpointRequest{Path: partial, Exit: exit})
	if err == nil {
		err = commitDir(partial, path)
	}
	if err != nil {
		if exit {
			c.setStopped(false)
		}
		os.RemoveAll(partial)
		return nil, fmt.Errorf("Cannot checkpoint container %s: %w", c.name(), err)
	}
	return r, nil
}

func (c *container) setStopped(stopped bool) {
	c.mu.Lock()
	c.rec.Stopped = stopped
	c.mu.Unlock()
}

// commitDir gives a directory its name when what is in it is on the disk.
func commitDir(partial, path string) error {
	d, err := os.Open(partial)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(d.Fd()))
	d.Close()
	if err != nil {
		return fmt.Errorf("sync %s: %w", partial, err)
	}
	return os.Rename(partial, path)
}

// Checkpoints lists the names of a container's checkpoints.
func (e *Engine) Checkpoints(ref, dir string) ([]string, error) {
	c, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	where, err := c.checkpointDir(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(where)
	switch {
	case err == nil:
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("checkpoints of container %s: %w", c.id, err)
	case dir != "":
		return nil, notFound("checkpoint directory %q does not exist for container %s", dir, c.name())
	}
	var names []string
	for _, d := range entries {
		if d.IsDir() && !strings.HasPrefix(d.Name(), ".") {
			names = append(names, d.Name())
		}
	}
	return names, nil
}

// RemoveCheckpoint removes a checkpoint's files.
func (e *Engine) RemoveCheckpoint(ref, name, dir string) error {
	if err := checkCheckpointName(name); err != nil {
		return err
	}
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	path, err := c.findCheckpoint(name, dir)
	if err != nil {
		return err
	}
	return removeTree(path)
}
