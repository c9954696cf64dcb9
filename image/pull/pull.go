// Package pull brings an image from a registry into the image store and
// unpacks its layers while they arrive.
package pull

import (
	"context"
	"errors"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
)

// Event is one step of a pull. ID is the first 12 hex digits of the layer's
// digest, empty for what concerns the whole image. Status is one of Docker's
// words. Current and Total are bytes, 0 when unknown.
type Event struct {
	ID      string
	Status  string
	Current int64
	Total   int64
}

// Options says what to pull. Progress may be nil; it is called from several
// goroutines, one at a time.
type Options struct {
	Store    *store.Store
	Client   *client.Client
	Ref      image.Reference
	Platform image.Platform // zero means the host's
	Progress func(Event)
}

// Pull brings ref into the store and gives it its name when all of it is
// there. It returns what the name stands for (index or manifest).
func Pull(ctx context.Context, o Options) (image.Descriptor, error) {
	return image.Descriptor{}, errors.New("pull: not built yet")
}
