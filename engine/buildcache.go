package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"cale/build/instance"
	"cale/build/keep"
	"cale/image"
	"cale/image/store"
)

// A builder is a process beside this one that works on the files of the image store (store.OpenShared). What it keeps
// is held here by leases of one digest each, so that no collection takes it away; what it made becomes an image here.

// HasBuilt tells whether a builder keeps anything here.
func (e *Engine) HasBuilt() bool {
	_, err := os.Stat(filepath.Join(e.cfg.Root, "build"))
	return err == nil
}

// Build holds the builder's content in the image store.
func (e *Engine) Build() keep.Direct { return keep.Direct{Store: e.store, Client: e.registry} }

// BuildRelease ends what Hold began. What nothing else needs goes with the next collection, which comes soon.
func (e *Engine) BuildRelease(ctx context.Context, c keep.Content) error {
	defer e.collectSoon()
	return e.Build().Release(ctx, c)
}

// BuildRestore brings a blob back for the builder; it goes again with the next collection, which comes soon.
func (e *Engine) BuildRestore(ctx context.Context, d image.Digest) error {
	defer e.begin()()
	defer e.collectSoon()
	return e.Build().Restore(ctx, d)
}

// releaseRest is how long nothing was released before it is collected: releases come many at a time. Where they do not
// end, it is collected after releaseLongest.
const (
	releaseRest    = 5 * time.Second
	releaseLongest = time.Minute
)

// collectSoon has what was released collected.
func (e *Engine) collectSoon() {
	if e.releases.Add(1) > 1 {
		return
	}
	e.work.Go(func() {
		end := time.Now().Add(releaseLongest)
		for seen := int64(0); seen != e.releases.Load() && time.Now().Before(end); {
			seen = e.releases.Load()
			select {
			case <-e.ctx.Done():
				return
			case <-time.After(releaseRest):
			}
		}
		e.releases.Store(0)
		if _, err := e.store.GC(e.ctx); err != nil && e.ctx.Err() == nil {
			e.cfg.Log("%v", err)
		}
	})
}

// Collect removes at once what nothing needs any more, as after a prune of the build cache.
func (e *Engine) Collect(ctx context.Context) error {
	defer e.begin()()
	_, err := e.store.GC(ctx)
	return err
}

// BuildGone tells that the builder's connection has ended. If the builder has not closed it but died, its steps, which
// nobody supervises any more, end too.
func (e *Engine) BuildGone() {
	if e.ctx.Err() != nil {
		return // it is this engine that goes
	}
	e.work.Go(func() {
		// A process that dies closes its connections before, or after, it lets its lock go.
		for range 100 {
			err := instance.EndOrphans(e.cfg.Run)
			if err == nil {
				return
			}
			if !errors.Is(err, instance.ErrAlive) {
				e.cfg.Log("end the steps of a builder that died: %v", err)
				return
			}
			select {
			case <-e.ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
}

// BuildName makes an image that a builder made visible under a name; one with a digest and no tag, or none, leaves it
// untagged.
func (e *Engine) BuildName(text string, target image.Descriptor) error {
	defer e.begin()()
	name, err := image.Reference{}, error(nil)
	if text != "" {
		if name, err = e.parseName(text); err != nil {
			return err
		}
		if !name.Digest.IsZero() {
			name = image.Reference{}
		}
	}
	pin := e.store.Pin("naming of what was built")
	defer pin.Release()
	pin.Add(target.Digest)
	if now, err := e.store.Resolve(name.String()); err == nil && now.Digest == target.Digest && !name.IsZero() {
		// It was built before, and nothing has to reach the disk for it.
		e.emitImage("tag", target, e.familiar(name))
		return nil
	}
	names, err := e.store.Names()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(names, func(n store.Name) bool { return n.Target.Digest == target.Digest }) {
		e.emitImage("create", target, target.Digest.String())
	}
	return e.nameImage(name, target)
}

// BuildJudge refuses an image that the policy does not let in. One that is here under its name, as it is, was let in
// before or made here.
func (e *Engine) BuildJudge(ctx context.Context, text string, d image.Digest) error {
	defer e.begin()()
	ref, err := e.parseName(text)
	if err != nil {
		return err
	}
	tag := ref
	tag.Digest = image.Digest{}
	if now, err := e.store.Resolve(tag.String()); err == nil && now.Digest == d {
		return nil
	}
	return registryError(e.judge(e.clientFor(nil, ref.Domain), ref, "")(ctx, []image.Digest{d}))
}
