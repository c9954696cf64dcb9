package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// stillMark is in the pod of a container that is frozen for the engine's own work and not for a client: should the
// engine die over it, the next one lets the container go on.
const stillMark = "still"

func (c *container) markStill() error {
	return os.WriteFile(filepath.Join(c.pod, stillMark), nil, 0o600)
}

func (c *container) unmarkStill() error {
	err := os.Remove(filepath.Join(c.pod, stillMark))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// standStill freezes a container for the engine's work, as a client would, unless it doesn't run or is paused. goOn ends
// that. The caller holds op until then.
func (e *Engine) standStill(ctx context.Context, c *container, ref string) (goOn func() error, err error) {
	nothing := func() error { return nil }
	c.mu.Lock()
	running := c.run != nil && c.rec.State.Status != Paused
	c.mu.Unlock()
	if !running {
		return nothing, nil
	}
	if err := c.markStill(); err != nil {
		return nil, err
	}
	// Not given up half way: it would stay frozen.
	if err := e.setPausedNow(context.WithoutCancel(ctx), c, ref, true); err != nil {
		err = errors.Join(err, c.unmarkStill())
		if hasEnded(c) {
			return nothing, nil // nothing changes any more
		}
		return nil, err
	}
	return func() error {
		if hasEnded(c) {
			return nil
		}
		err := e.setPausedNow(context.WithoutCancel(ctx), c, ref, false)
		return errors.Join(err, c.unmarkStill())
	}, nil
}

func isFile(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
