package pull

import (
	"context"
	"strings"

	"cale/image"

	"golang.org/x/sync/semaphore"
)

const (
	// maxZstd bounds the zstd layers that are unpacked at one time: each takes
	// memory for what its compressor looked back to, 8 MiB as a rule, and half as
	// much again until it is collected.
	maxZstd = 3
	// smallZstd is up to what size in bytes a layer is taken to need little.
	smallZstd = 64 << 10
)

// room bounds what is on its way at one time: how many layers, how many of those
// that need much memory and, where blobs are dropped when they are unpacked, how
// many bytes.
type room struct {
	slots chan struct{}
	zstd  chan struct{}
	bytes *semaphore.Weighted // nil without a bound
	most  int64
}

// newRoom has room for a layer of any size that is among jobs.
func newRoom(jobs []*job, bound bool) *room {
	r := &room{slots: make(chan struct{}, maxAtOnce), zstd: make(chan struct{}, maxZstd)}
	if bound {
		for _, j := range jobs {
			r.most = max(r.most, j.desc.Size)
		}
		r.bytes = semaphore.NewWeighted(r.most)
	}
	return r
}

// enter waits for room for a layer; waiting is told if there is none.
func (r *room) enter(ctx context.Context, layer image.Descriptor, waiting func()) (release func(), err error) {
	var held []func()
	release = func() {
		for _, f := range held {
			f()
		}
	}
	var slots []chan struct{}
	if strings.Contains(layer.MediaType, "zstd") && layer.Size > smallZstd {
		slots = append(slots, r.zstd) // first: who waits here takes no place of layers that need not
	}
	for _, c := range append(slots, r.slots) {
		if err := take(ctx, c, waiting); err != nil {
			release()
			return nil, err
		}
		held = append(held, func() { <-c })
	}
	if r.bytes != nil && !r.bytes.TryAcquire(layer.Size) {
		waiting()
		if err := r.bytes.Acquire(ctx, layer.Size); err != nil {
			release()
			return nil, context.Cause(ctx)
		}
	}
	if r.bytes != nil {
		held = append(held, func() { r.bytes.Release(layer.Size) })
	}
	return release, nil
}

func take(ctx context.Context, slots chan struct{}, waiting func()) error {
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	waiting()
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
