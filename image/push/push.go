// Package push sends an image of the store to a registry.
package push

import (
	"context"
	"errors"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
)

// Event is one step of a push, as pull.Event.
type Event struct {
	ID      string
	Status  string
	Current int64
	Total   int64
}

// Options says what to push. Name is the store's name to read; empty means
// Ref's. Platform, when set, sends only that platform's manifest of an index.
// Progress may be nil; it is called from several goroutines, one at a time.
type Options struct {
	Store    *store.Store
	Client   *client.Client
	Ref      image.Reference
	Name     string
	Platform image.Platform
	Progress func(Event)
}

// Push sends the image and returns what its name stands for at the registry.
func Push(ctx context.Context, o Options) (image.Descriptor, error) {
	return image.Descriptor{}, errors.New("push: not built yet")
}
