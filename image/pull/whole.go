package pull

import (
	"context"
	"errors"
	"fmt"

	"cale/image"
	"cale/registry/client"

	"golang.org/x/sync/errgroup"
)

// maxNesting bounds how many indexes may lie inside one another, and maxMembers
// how many manifests they may name together.
const (
	maxNesting = 4
	maxMembers = 1000
)

// whole brings all that an index names, whatever it is for; done is the
// manifest that was brought before. It is kept as it came: only what this
// machine can run is unpacked.
func (p *puller) whole(ctx context.Context, target image.Descriptor, done image.Digest) error {
	todo := []image.Descriptor{target}
	seen := map[image.Digest]bool{done: true}
	var blobs []image.Descriptor
	for range maxNesting {
		var next []image.Descriptor
		for _, d := range todo {
			if seen[d.Digest] {
				continue
			}
			if seen[d.Digest] = true; len(seen) > maxMembers {
				return fmt.Errorf("the index names more than %d manifests", maxMembers)
			}
			p.pin.Add(d.Digest)
			raw, err := p.document(ctx, d)
			if err != nil {
				return err
			}
			if image.IsIndex(d.MediaType) {
				ix, err := image.ParseIndex(d.MediaType, raw)
				if err != nil {
					return fmt.Errorf("index %s: %w", d.Digest.Short(), err)
				}
				next = append(next, ix.Manifests...)
				continue
			}
			m, err := image.ParseManifest(d.MediaType, raw)
			if err != nil {
				return fmt.Errorf("manifest %s: %w", d.Digest.Short(), err)
			}
			for _, b := range append([]image.Descriptor{m.Config}, m.Layers...) {
				if !seen[b.Digest] {
					seen[b.Digest] = true
					blobs = append(blobs, b)
				}
			}
		}
		if todo = next; len(todo) == 0 {
			return p.store(ctx, blobs)
		}
	}
	return errors.New("indexes nested too deep")
}

// store fetches blobs that are only kept.
func (p *puller) store(ctx context.Context, blobs []image.Descriptor) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxAtOnce)
	for _, b := range blobs {
		p.pin.Add(b.Digest)
		g.Go(func() error {
			p.event(Event{ID: b.Digest.Short(), Status: "Pulling fs layer"})
			err := p.blob(ctx, b)
			if errors.Is(err, client.ErrNotFound) && image.IsForeign(b.MediaType) {
				err = nil // it stays where its URLs say
			}
			if err == nil {
				p.event(Event{ID: b.Digest.Short(), Status: "Download complete"})
			}
			return err
		})
	}
	return g.Wait()
}
