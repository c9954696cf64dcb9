package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cale/image"
	"cale/image/store"
)

// CheckReport is what Check read and found.
type CheckReport struct {
	Blobs, Images, Layers, Containers int
	Bytes                             int64 // of blobs and of the files of layers
	Unverified                        int   // layers whose blob is not here to compare them with
	Problems                          []CheckProblem
}

// CheckProblem is something wrong. Repaired says what was done about it; it is empty if it stays.
type CheckProblem struct{ Object, Text, Repaired string }

// Check reads back all that images and containers are made of: blobs against their digests, names and containers
// against what they refer to, unpacked layers against their blobs. With repair it removes damaged blobs, so that the
// next pull fetches them, and unpacks damaged or missing layers anew.
func (e *Engine) Check(ctx context.Context, repair bool) (CheckReport, error) {
	defer e.begin()()
	var r CheckReport
	found, done, err := e.store.Check(ctx)
	if err != nil {
		return r, err
	}
	r.Blobs, r.Images, r.Layers, r.Bytes, r.Unverified = done.Blobs, done.Images, done.Layers, done.Bytes, done.Unverified
	for _, p := range found {
		out := CheckProblem{Object: p.Object(), Text: p.Text}
		if p.Kind == store.KindImage {
			out.Text += ": pull it again, or remove it"
		}
		if repair {
			if out.Repaired, err = e.repair(ctx, p); err != nil {
				out.Text += fmt.Sprintf("; not repaired: %v", err)
			}
		}
		r.Problems = append(r.Problems, out)
	}
	if repair {
		e.forgetImages()
	}
	for _, c := range e.all() {
		r.Containers++
		text, err := e.checkContainer(c)
		if err != nil {
			return r, err
		}
		if text == "" {
			continue
		}
		out := CheckProblem{Object: "container " + c.name(), Text: text}
		if repair {
			if out.Repaired, err = e.unpackFor(ctx, c); err != nil {
				out.Text += fmt.Sprintf("; not repaired: %v", err)
			}
		}
		r.Problems = append(r.Problems, out)
	}
	return r, ctx.Err()
}

// forgetImages empties the cache of parsed images: what they were read from may be gone.
func (e *Engine) forgetImages() {
	e.images.mu.Lock()
	defer e.images.mu.Unlock()
	e.images.byKey = nil
}

// repair puts right what the store can, unless a running container stands on it.
func (e *Engine) repair(ctx context.Context, p store.Problem) (did string, err error) {
	if p.Kind != store.KindLayer {
		return e.store.Repair(ctx, p)
	}
	for _, c := range e.usersOf(p.Digest) {
		// Nobody starts it meanwhile.
		if err := c.op.lock(ctx); err != nil {
			return "", err
		}
		defer c.op.unlock()
		c.mu.Lock()
		running := c.run != nil
		c.mu.Unlock()
		if running {
			return "", conflict("container %s uses it: stop it first", c.name())
		}
	}
	return e.store.Repair(ctx, p)
}

// checkContainer tells what a container lacks.
func (e *Engine) checkContainer(c *container) (string, error) {
	c.mu.Lock()
	layers, manifest := c.rec.Layers, c.rec.Manifest
	c.mu.Unlock()
	for _, d := range layers {
		if !e.store.Layers.Has(d) {
			return fmt.Sprintf("its layer %s is missing", d), nil
		}
	}
	switch _, err := e.store.Stat(manifest); {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Sprintf("its image's manifest %s is missing: it runs, but can't be committed", manifest), nil
	case err != nil:
		return "", err
	}
	return "", nil
}

// unpackFor unpacks what is missing of a container's layers.
func (e *Engine) unpackFor(ctx context.Context, c *container) (did string, err error) {
	c.mu.Lock()
	layers, manifest := slices.Clone(c.rec.Layers), c.rec.Manifest
	c.mu.Unlock()
	img, err := e.store.Image(image.Descriptor{Digest: manifest}, image.Platform{})
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(layers, func(d image.Digest) bool { return !slices.Contains(img.Config.DiffIDs, d) }) {
		return "", errors.New("its image has other layers")
	}
	if err := e.unpack(ctx, img); err != nil {
		return "", err
	}
	return "unpacked again", nil
}
