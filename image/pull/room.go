package pull

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// room bounds what is on its way at one time: how many layers and, where blobs
// are dropped when they are unpacked, how many bytes.
type room struct {
	slots chan struct{}
	bytes *semaphore.Weighted // nil without a bound
	most  int64
}

// newRoom has room for a layer of any size that is among jobs.
func newRoom(jobs []*job, bound bool) *room {
	r := &room{slots: make(chan struct{}, maxAtOnce)}
	if bound {
		for _, j := range jobs {
			r.most = max(r.most, j.desc.Size)
		}
		r.bytes = semaphore.NewWeighted(r.most)
	}
	return r
}

// enter waits for room for a layer; waiting is told once if there is none.
func (r *room) enter(ctx context.Context, size int64, waiting func()) (release func(), err error) {
	select {
	case r.slots <- struct{}{}:
	default:
		waiting()
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if r.bytes == nil {
		return func() { <-r.slots }, nil
	}
	if !r.bytes.TryAcquire(size) {
		waiting()
		if err := r.bytes.Acquire(ctx, size); err != nil {
			<-r.slots
			return nil, context.Cause(ctx)
		}
	}
	return func() { r.bytes.Release(size); <-r.slots }, nil
}
