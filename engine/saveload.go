package engine

import (
	"context"
	"errors"
	"io"
	"slices"

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
		loaded(l.Name.Familiar())
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
	for _, ref := range refs {
		target, _, err := e.resolveTarget(ref)
		if err != nil {
			return err
		}
		pin.Add(target.Digest)
		names, err := e.savedNames(ref)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(items, func(it archive.Item) bool { return it.Target.Digest == target.Digest })
		if i < 0 {
			items = append(items, archive.Item{Target: target, Names: names})
			continue
		}
		for _, n := range names {
			if !slices.Contains(items[i].Names, n) {
				items[i].Names = append(items[i].Names, n)
			}
		}
	}
	return archive.Save(ctx, w, e.store, items)
}

// savedNames is the name asked for or, when a repository alone was named, all its tags. An id has none.
func (e *Engine) savedNames(ref string) ([]image.Reference, error) {
	parsed, err := image.ParseReference(ref)
	if err != nil || !parsed.Digest.IsZero() {
		return nil, nil
	}
	switch _, err := e.store.Resolve(parsed.String()); {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil // an id that looks like a name
	case err != nil:
		return nil, err
	}
	return []image.Reference{parsed}, nil
}
