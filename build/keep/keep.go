// Package keep holds what the build cache needs in the image store, and tells
// the store's owner of what was built.
package keep

import (
	"context"
	"fmt"
	"sync"
	"time"

	"cale/image"
	"cale/image/store"
)

// Content is blobs, and unpacked layers by their diffIDs.
type Content struct {
	Blobs, Layers []image.Digest `json:",omitempty"`
}

// Keeper is the owner of the image store: the engine in its own process, or
// this process where there is no engine.
type Keeper interface {
	// Held lists what is held.
	Held(ctx context.Context) (Content, error)
	// Hold keeps content, there or not yet, from being collected.
	Hold(ctx context.Context, c Content) error
	// Release ends that.
	Release(ctx context.Context, c Content) error
	// Added tells of new content; sync makes it survive a power cut. It may be
	// told again, and that a part of it is not there is no error.
	Added(ctx context.Context, c Content, sync bool) error
	// Restore brings a blob back that is not kept beside its unpacked layer, for
	// a moment: whoever wants it opens it at once.
	Restore(ctx context.Context, d image.Digest) error
	// Judge refuses an image that the machine's policy does not let in. One that
	// is in the store under this name, as it is, was let in before.
	Judge(ctx context.Context, name string, d image.Digest) error
	// Names lists the images, SetName adds one. An empty name, or one with a
	// digest, leaves the image without a tag.
	Names(ctx context.Context) ([]store.Name, error)
	SetName(ctx context.Context, name string, target image.Descriptor) error
}

// Holds counts who needs what is held: the same layer may be part of several
// snapshots. It is safe for concurrent use.
type Holds struct {
	Keeper Keeper

	mu     sync.Mutex
	blobs  map[image.Digest]int
	layers map[image.Digest]int

	telling sync.Mutex // one Added at a time
	untold  Content    // guarded by telling
}

// answer bounds the wait for the owner, where a build that was cancelled does
// not end it.
const answer = time.Minute

// OpenHolds begins with what an earlier process left held: blobs counted once,
// since the content store has each once, and layers not at all: whoever has
// them holds them again, and Settle releases the others.
func OpenHolds(ctx context.Context, k Keeper) (*Holds, error) {
	held, err := k.Held(ctx)
	if err != nil {
		return nil, fmt.Errorf("what the build cache holds: %w", err)
	}
	h := &Holds{Keeper: k, blobs: map[image.Digest]int{}, layers: map[image.Digest]int{}}
	for _, d := range held.Blobs {
		h.blobs[d] = 1
	}
	for _, d := range held.Layers {
		h.layers[d] = 0
	}
	return h, nil
}

// Settle releases the layers that nobody has held since OpenHolds.
func (h *Holds) Settle(ctx context.Context) error {
	h.mu.Lock()
	var c Content
	for d, n := range h.layers {
		if n == 0 {
			c.Layers = append(c.Layers, d)
			delete(h.layers, d)
		}
	}
	h.mu.Unlock()
	if len(c.Layers) == 0 {
		return nil
	}
	return h.Keeper.Release(ctx, c)
}

// Renew holds everything anew, for an engine that may have lost the latest.
func (h *Holds) Renew(ctx context.Context) error {
	h.mu.Lock()
	var c Content
	for d := range h.blobs {
		c.Blobs = append(c.Blobs, d)
	}
	for d := range h.layers {
		c.Layers = append(c.Layers, d)
	}
	h.mu.Unlock()
	return h.Keeper.Hold(ctx, c)
}

// Added tells the owner of content that is in its place in the store, which it
// would forget at a reboot if it did not know. A cancelled build is no reason
// not to tell; what could not be told is told with the next, or by Tell.
func (h *Holds) Added(ctx context.Context, c Content) error {
	h.telling.Lock()
	defer h.telling.Unlock()
	h.untold.Blobs = append(h.untold.Blobs, c.Blobs...)
	h.untold.Layers = append(h.untold.Layers, c.Layers...)
	if len(h.untold.Blobs)+len(h.untold.Layers) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answer)
	defer cancel()
	if err := h.Keeper.Added(ctx, h.untold, false); err != nil {
		return err
	}
	h.untold = Content{}
	return nil
}

// Tell tells the owner what it could not be told before. It is for whoever is
// about to use what is there already.
func (h *Holds) Tell(ctx context.Context) error { return h.Added(ctx, Content{}) }

// Blob holds a blob; it needs no more than one DropBlob.
func (h *Holds) Blob(ctx context.Context, d image.Digest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.blobs[d] > 0 {
		return nil
	}
	if err := h.Keeper.Hold(ctx, Content{Blobs: []image.Digest{d}}); err != nil {
		return err
	}
	h.blobs[d] = 1
	return nil
}

// HasBlob tells whether the blob is held.
func (h *Holds) HasBlob(d image.Digest) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.blobs[d] > 0
}

// Blobs lists the blobs that are held.
func (h *Holds) Blobs() []image.Digest {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]image.Digest, 0, len(h.blobs))
	for d := range h.blobs {
		out = append(out, d)
	}
	return out
}

// DropBlob releases a blob.
func (h *Holds) DropBlob(ctx context.Context, d image.Digest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.blobs[d]; !ok {
		return nil
	}
	delete(h.blobs, d)
	return h.release(ctx, Content{Blobs: []image.Digest{d}})
}

// release releases what is not counted any more. An answer that does not come
// leaves open whether it was done: who needs it again holds it anew, and what
// stays held for nobody is seen to when the next process opens the holds.
func (h *Holds) release(ctx context.Context, c Content) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answer)
	defer cancel()
	return h.Keeper.Release(ctx, c)
}

// Layer holds a layer once more.
func (h *Holds) Layer(ctx context.Context, d image.Digest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.layers[d]; !ok {
		if err := h.Keeper.Hold(ctx, Content{Layers: []image.Digest{d}}); err != nil {
			return err
		}
	}
	h.layers[d]++
	return nil
}

// DropLayer undoes one Layer.
func (h *Holds) DropLayer(ctx context.Context, d image.Digest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.layers[d] > 1 {
		h.layers[d]--
		return nil
	}
	if _, ok := h.layers[d]; !ok {
		return nil
	}
	delete(h.layers, d)
	return h.release(ctx, Content{Layers: []image.Digest{d}})
}
