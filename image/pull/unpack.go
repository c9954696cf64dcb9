package pull

import (
	"context"

	"cale/image"
	"cale/image/store"

	"golang.org/x/sync/errgroup"
)

// Unpack unpacks what is missing of the layers of an image that is in the
// store: one that was loaded, built or pushed here rather than pulled. The
// caller keeps the image from being collected meanwhile. Progress may be nil.
func Unpack(ctx context.Context, s *store.Store, img *store.Image, progress func(Event)) error {
	p := &puller{Options: Options{Store: s, Progress: progress}, pin: s.Pin()}
	defer p.pin.Release()
	p.pin.Add(img.Config.DiffIDs...)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxAtOnce)
	seen := map[image.Digest]bool{}
	for i, diffID := range img.Config.DiffIDs {
		if seen[diffID] || s.Layers.Has(diffID) {
			continue
		}
		seen[diffID] = true
		j := &job{p: p, desc: img.Manifest.Layers[i], diffID: diffID, configured: make(chan struct{})}
		close(j.configured)
		g.Go(func() error { return j.unpackStored(ctx) })
	}
	return g.Wait()
}
