package pull

import (
	"context"
	"errors"
	"fmt"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
)

// Restore makes sure that a blob is in the store: one that is not kept beside
// its unpacked layer is fetched again from its origin. The caller has it pinned. A blob that the store knows nothing of is store.ErrNotFound.
func Restore(ctx context.Context, s *store.Store, c *client.Client, d image.Digest) error {
	if _, err := s.Stat(d); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	o, err := s.Origin(d)
	if err != nil {
		return err
	}
	p := &puller{Options: Options{Store: s, Client: c, Ref: o.From}}
	if err := p.blob(ctx, o.Blob); err != nil {
		return fmt.Errorf("layer %s is kept unpacked only, and can't be fetched again from %s: %w", d.Short(), o.From.FamiliarName(), err)
	}
	return nil
}
