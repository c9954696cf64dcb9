package engine

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"cale/image"
	"cale/image/archive"
	"cale/image/store"
)

// LoadImages reads a tar (docker save's or an OCI layout), telling each name or id loaded.
func (e *Engine) LoadImages(ctx context.Context, r io.Reader, loaded func(string)) error {
	defer e.begin()()
	err := archive.Load(ctx, r, e.store, func(l archive.Loaded) error {
		if l.Name.IsZero() {
			if err := e.keepUntagged(l.Target); err != nil {
				return err
			}
			loaded(l.ID.String())
			return nil
		}
		if err := e.setName(l.Name, l.Target); err != nil {
			return err
		}
		loaded(e.familiar(l.Name))
		return nil
	})
	if errors.Is(err, archive.ErrFormat) {
		return &Error{Class: ErrInvalid, Text: err.Error(), Cause: err}
	}
	return err
}

// SaveImages writes images as a tar that docker load, and whoever reads OCI layouts, can read.
func (e *Engine) SaveImages(ctx context.Context, refs []string, w io.Writer) error {
	defer e.begin()()
	pin := e.store.Pin()
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
		tags, err := e.tagsOf(ref)
		if err != nil {
			return err
		}
		for _, n := range tags {
			add(n.Target, n.ref)
		}
		if len(tags) > 0 {
			continue
		}
		target, _, err := e.resolveTarget(ref)
		if err != nil {
			return err
		}
		add(target)
	}
	return archive.Save(ctx, w, e.store, items)
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
