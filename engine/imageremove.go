package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cale/image"
	"cale/image/store"
)

// RemoveImage takes a name away, and the image with its last name. prune is Docker's: parents without a name go too;
// there are none here.
func (e *Engine) RemoveImage(ctx context.Context, ref string, force, prune bool) ([]RemovedImage, error) {
	defer e.begin()()
	out, last, err := e.dropNames(ref, force)
	if last {
		e.collect()
	}
	return out, err
}

// RemovePodsImage takes the names away that an image has for pods, and the image with them, unless others have named it
// or have containers of it.
func (e *Engine) RemovePodsImage(ctx context.Context, ref string) error {
	defer e.begin()()
	img, short, err := e.resolveImage(ref, "")
	if err != nil {
		_, last, err := e.dropBroken(ref, err)
		if last {
			e.collect()
		}
		return err
	}
	names, err := e.namesOf(img)
	if err != nil {
		return err
	}
	drop := slices.DeleteFunc(slices.Clone(names), othersName)
	last := len(drop) == len(names)
	if len(drop) == 0 {
		return conflict("image %s has names that are not of pods: they have to be removed where they were given (cale rmi)", short)
	}
	if last {
		if e.imageUsers()[img.ID.String()].others {
			return conflict("image %s is used by containers that are not of pods", short)
		}
		if err := e.checkUnused(img, ref, false, true); err != nil {
			return err
		}
	}
	if _, err := e.drop(img, drop, last); err != nil {
		return err
	}
	if last {
		e.collect()
	}
	return nil
}

// dropNames is RemoveImage but for the content, which has nothing to keep it if last is true.
func (e *Engine) dropNames(ref string, force bool) (out []RemovedImage, last bool, err error) {
	img, _, err := e.resolveImage(ref, "")
	if err != nil {
		return e.dropBroken(ref, err)
	}
	names, err := e.namesOf(img)
	if err != nil {
		return nil, false, err
	}
	var drop []store.Name
	if parsed, err := e.parseName(ref); err == nil {
		for _, n := range names {
			if n.Name == parsed.String() {
				drop = []store.Name{n}
			}
		}
		if drop == nil && !parsed.Digest.IsZero() { // of what has this digest, all that the repository calls it
			for _, n := range names {
				if r, err := image.ParseReference(n.Name); err == nil && !isUntagged(n) && r.Name() == parsed.Name() && n.Target.Digest == parsed.Digest {
					drop = append(drop, n)
				}
			}
		}
	}
	byName := drop != nil
	if !byName {
		drop = names
	}
	repos := map[string]bool{}
	for _, n := range names {
		if r, err := image.ParseReference(n.Name); err == nil && !isUntagged(n) {
			repos[r.Name()] = true
		}
	}
	short := img.ID.Short()
	last = len(drop) == len(names)
	if !byName && len(repos) > 1 && !force {
		return nil, false, conflict("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short)
	}
	if last {
		if err := e.checkUnused(img, ref, byName, force); err != nil {
			return nil, false, err
		}
	}
	out, err = e.drop(img, drop, last)
	return out, last && err == nil, err
}

// drop takes names of an image away; last says that it has no others.
func (e *Engine) drop(img *store.Image, names []store.Name, last bool) (out []RemovedImage, err error) {
	for _, n := range names {
		if err := e.store.RemoveName(n.Name); err != nil && !errors.Is(err, store.ErrNotFound) {
			return out, err
		}
		if !isUntagged(n) {
			text := n.Name
			if r, err := image.ParseReference(n.Name); err == nil {
				text = e.familiar(r)
			}
			out = append(out, RemovedImage{Untagged: text})
			e.emitImage("untag", img.Target, text)
		}
	}
	if last {
		out = append(out, RemovedImage{Deleted: img.ID.String()})
		e.emitOther("image", "delete", img.ID.String(), "name", img.ID.String())
	}
	return out, nil
}

// dropBroken takes away a name that leads to an image that isn't here whole.
func (e *Engine) dropBroken(ref string, why error) (out []RemovedImage, last bool, err error) {
	parsed, err := e.parseName(ref)
	if err != nil {
		return nil, false, why
	}
	if err := e.store.RemoveName(parsed.String()); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			err = why
		}
		return nil, false, err
	}
	e.emitOther("image", "untag", e.familiar(parsed), "name", e.familiar(parsed))
	return []RemovedImage{{Untagged: e.familiar(parsed)}}, true, nil
}

// isUntagged says whether a name only keeps an image that has none.
func isUntagged(n store.Name) bool {
	_, err := image.ParseDigest(n.Name)
	return err == nil
}

func (e *Engine) namesOf(img *store.Image) ([]store.Name, error) {
	names, err := e.store.Names()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(n store.Name) bool {
		other, err := e.loadImage(n.Target, image.Platform{})
		return n.Target.Digest != img.Target.Digest && (err != nil || other.ID != img.ID)
	}), nil
}

// checkUnused refuses to remove the last name of an image that a container stands on.
func (e *Engine) checkUnused(img *store.Image, ref string, byName, force bool) error {
	for _, c := range e.all() {
		c.mu.Lock()
		uses, running := c.rec.ImageID == img.ID.String(), c.run != nil
		// One that is mounted is in use too, though the container would keep its content.
		uses = uses || slices.ContainsFunc(c.rec.Mounts, func(m Mount) bool {
			return m.Type == "image" && slices.Equal(m.Layers, img.Config.DiffIDs)
		})
		c.mu.Unlock()
		switch {
		case !uses:
		case byName && !force:
			return conflict("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s", ref, c.id[:12], img.ID.Short())
		case running && !byName:
			return conflict("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", img.ID.Short(), c.id[:12])
		case !force:
			return conflict("conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", img.ID.Short(), c.id[:12])
		}
	}
	return nil
}

// collect removes what nobody needs any more, in the background: names are gone at once, trees take their time.
func (e *Engine) collect() {
	e.trash.Add(1)
	go func() {
		defer e.trash.Done()
		if _, err := e.store.GC(context.WithoutCancel(e.ctx)); err != nil {
			e.cfg.Log("%v", err)
		}
	}()
}

// PruneImages removes images no container uses: untagged ones, or all of them; match may be nil.
func (e *Engine) PruneImages(ctx context.Context, all bool, match func(Image) bool) (PrunedImages, error) {
	defer e.begin()()
	var p PrunedImages
	images, err := e.Images(ctx, true)
	if err != nil {
		return p, err
	}
	for _, i := range images {
		if i.Containers > 0 || !all && len(i.Names) > 0 || match != nil && !match(i) {
			continue
		}
		// The content goes in one collection at the end, which counts it.
		removed, _, err := e.dropNames(i.ID, true)
		if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) {
			continue // a container came meanwhile, or the image went
		}
		if err != nil {
			e.collect()
			return p, err
		}
		p.Removed = append(p.Removed, removed...)
	}
	freed, err := e.store.GC(ctx)
	if err != nil {
		return p, err
	}
	p.Bytes = freed.Bytes
	e.emitOther("image", "prune", "", "reclaimed", fmt.Sprint(p.Bytes))
	return p, nil
}
