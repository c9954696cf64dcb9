package engine

import (
	"context"
	"fmt"
	"slices"

	"cale/image"
)

// A working container is one that an image is made of by hand: commands are run in it one after the other, and the
// configuration that its image is to have is not that of the process it runs.

// Process is what a working container runs next.
type Process struct {
	Args, Env []string // beside the image's
	User, Dir string   // the image's, if empty
	TTY       bool
	OpenStdin bool
}

// WorkingConfig is the configuration that a container's image is to have.
func (e *Engine) WorkingConfig(ref string) (image.RunConfig, error) {
	c, err := e.find(ref)
	if err != nil {
		return image.RunConfig{}, err
	}
	c.mu.Lock()
	rec := c.rec
	c.mu.Unlock()
	if rec.Working != nil {
		return *rec.Working, nil
	}
	img, err := e.store.Image(image.Descriptor{Digest: rec.Manifest}, image.Platform{})
	if err != nil {
		return image.RunConfig{}, fmt.Errorf("container %s: its image: %w", ref, err)
	}
	return img.Config.Run, nil
}

// SetWorkingConfig makes a container a working container whose image is to have this configuration.
func (e *Engine) SetWorkingConfig(ctx context.Context, ref string, cfg image.RunConfig) error {
	if cfg.StopSignal != "" {
		if _, err := parseSignal(cfg.StopSignal); err != nil {
			return err
		}
	}
	return e.changeWorking(ctx, ref, func(rec *record) error {
		rec.Working = &cfg
		return nil
	})
}

// SetProcess says what a working container that does not run is to run next.
func (e *Engine) SetProcess(ctx context.Context, ref string, p Process) error {
	if len(p.Args) == 0 {
		return invalid("no command is given")
	}
	return e.changeWorking(ctx, ref, func(rec *record) error {
		if rec.Working == nil {
			return conflict("container %s is no working container: cale builder from makes one", ref)
		}
		w := rec.Working
		rec.Run.Entrypoint, rec.Run.Cmd = nil, p.Args
		rec.Run.Env = slices.Concat(w.Env, p.Env)
		rec.Run.User, rec.Run.WorkingDir = w.User, w.WorkingDir
		if p.User != "" {
			rec.Run.User = p.User
		}
		if p.Dir != "" {
			rec.Run.WorkingDir = p.Dir
		}
		if rec.Run.WorkingDir == "" {
			rec.Run.WorkingDir = "/"
		}
		rec.Run.Health = nil
		rec.Spec.TTY, rec.Spec.OpenStdin, rec.Spec.StdinOnce = p.TTY, p.OpenStdin, p.OpenStdin
		return nil
	})
}

func (e *Engine) changeWorking(ctx context.Context, ref string, change func(*record) error) error {
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
	defer c.mu.Unlock()
	switch {
	case c.removing:
		return notFound("No such container: %s", ref)
	case c.run != nil:
		return conflict("container %s is running", ref)
	case c.group != nil:
		return conflict("container %s is a part of a pod", ref)
	}
	if err := change(&c.rec); err != nil {
		return err
	}
	return c.save(c.keep())
}
