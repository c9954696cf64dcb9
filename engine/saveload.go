package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"cale/image"
	"cale/image/archive"
	"cale/image/store"
)

// LoadImages reads a tar (docker save's or an OCI layout), telling each name or id loaded; with a platform only what
// the images are for that one.
func (e *Engine) LoadImages(ctx context.Context, r io.Reader, platform string, loaded func(string)) error {
	defer e.begin()()
	err := archive.Load(ctx, r, e.store, func(l archive.Loaded) error {
		img, err := e.forPlatform(l.Target, platform)
		if err != nil {
			return err
		}
		if img != nil {
			l.Target, l.ID = img.ManifestDescriptor, img.ID
		}
		if l.Name.IsZero() {
			if err := e.store.KeepUntagged(l.Target); err != nil {
				return err
			}
			e.emitImage("load", l.Target, l.ID.String())
			loaded(l.ID.String())
			return nil
		}
		if err := e.setName(l.Name, l.Target); err != nil {
			return err
		}
		e.emitImage("load", l.Target, e.familiar(l.Name))
		loaded(e.familiar(l.Name))
		return nil
	})
	if errors.Is(err, archive.ErrFormat) {
		return &Error{Class: ErrInvalid, Text: err.Error(), Cause: err}
	}
	return err
}

// forPlatform is what an image is for a platform; nil if none is asked for.
func (e *Engine) forPlatform(target image.Descriptor, platform string) (*store.Image, error) {
	if platform == "" {
		return nil, nil
	}
	p, err := image.ParsePlatform(platform)
	if err != nil {
		return nil, invalid("%v", err)
	}
	img, err := e.store.Image(target, p)
	if err == nil && p.Score(img.Config.Platform) == 0 {
		err = image.ErrNoPlatform
	}
	if errors.Is(err, image.ErrNoPlatform) || errors.Is(err, store.ErrNotFound) {
		return nil, &Error{Class: ErrNoSuchImage, Text: fmt.Sprintf("image %s is not here for the platform %s", target.Digest, p), Cause: err}
	}
	return img, err
}

// SaveImages writes images as a tar that docker load, and whoever reads OCI layouts, can read; with a platform only
// what the images are for that one.
func (e *Engine) SaveImages(ctx context.Context, refs []string, platform string, w io.Writer) error {
	defer e.begin()()
	defer e.collectSpare()
	pin := e.store.Pin("save of " + strings.Join(refs, ", "))
	defer pin.Release()
	var items []archive.Item
	add := func(target image.Descriptor, names ...image.Reference) {
		pin.Add(target.Digest)
		i := slices.IndexFunc(items, func(it archive.Item) bool { return it.Target.Digest == target.Digest })
		if i < 0 {
			i = len(items)
			items = append(items, archive.Item{Target: target})
		}
		for _, n := range names {
			if !slices.Contains(items[i].Names, n) {
				items[i].Names = append(items[i].Names, n)
			}
		}
	}
	for _, ref := range refs {
		found, err := e.tagsOf(ref)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			target, _, err := e.resolveTarget(ref)
			if err != nil {
				return err
			}
			found = []taggedImage{{Name: store.Name{Target: target}}}
		}
		for _, n := range found {
			img, err := e.forPlatform(n.Target, platform)
			if err != nil {
				return err
			}
			if img != nil {
				n.Target = img.ManifestDescriptor
			}
			if n.ref.IsZero() {
				add(n.Target)
			} else {
				add(n.Target, n.ref)
			}
		}
	}
	for _, it := range items {
		if err := e.restoreImage(ctx, it.Target); err != nil {
			return err
		}
	}
	if err := archive.Save(ctx, w, e.store, items); err != nil {
		return err
	}
	for _, it := range items {
		e.emitImage("save", it.Target, it.Target.Digest.String())
	}
	return nil
}

type taggedImage struct {
	store.Name
	ref image.Reference
}

// tagsOf finds what a name means to a save: the image of that tag or, when a repository alone is named, all of its
// tags. An id has none.
func (e *Engine) tagsOf(text string) ([]taggedImage, error) {
	asked, err := e.parseName(text)
	if err != nil || !asked.Digest.IsZero() {
		return nil, nil // an id, or a name that is refused by whoever resolves it
	}
	all := strings.LastIndexByte(text, ':') <= strings.LastIndexByte(text, '/')
	names, err := e.store.Names()
	if err != nil {
		return nil, err
	}
	var out []taggedImage
	for _, n := range names {
		r, err := image.ParseReference(n.Name)
		if err == nil && r.Digest.IsZero() && r.Name() == asked.Name() && (all || r.Tag == asked.Tag) {
			out = append(out, taggedImage{n, r})
		}
	}
	return out, nil
}
