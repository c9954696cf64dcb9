package pull

import (
	"context"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"

	"golang.org/x/sync/errgroup"
)

// Unpack unpacks what is missing of the layers of an image that is in the
// store: one that was loaded, built or pushed here rather than pulled. Blobs
// that are not kept are fetched again by c. The caller keeps the image from
// being collected meanwhile.
func Unpack(ctx context.Context, s *store.Store, c *client.Client, img *store.Image) error {
	p := &puller{Options: Options{Store: s, Client: c}, pin: s.Pin("unpacking of image " + img.ID.Short())}
	defer p.pin.Release()
	p.pin.Add(img.Config.DiffIDs...)
	g, ctx := errgroup.WithContext(ctx)
	room := newRoom(nil, false)
	seen := map[image.Digest]bool{}
	for i, diffID := range img.Config.DiffIDs {
		if seen[diffID] || s.Layers.Has(diffID) {
			continue
		}
		seen[diffID] = true
		j := &job{p: p, desc: img.Manifest.Layers[i], diffID: diffID, configured: make(chan struct{})}
		close(j.configured)
		p.pin.Add(j.desc.Digest)
		g.Go(func() error {
			release, err := room.enter(ctx, j.desc, func() {})
			if err != nil {
				return err
			}
			defer release()
			if err := Restore(ctx, s, c, j.desc.Digest); err != nil {
				return err
			}
			return j.unpackStored(ctx)
		})
	}
	return g.Wait()
}
