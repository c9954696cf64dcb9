package server

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
)

// arrival is one blob on its way from another registry to the store, for all
// who ask for it meanwhile. It goes on while anybody does.
type arrival struct {
	desc image.Descriptor
	stop context.CancelFunc

	mu      sync.Mutex
	moved   chan struct{} // closed at the next change
	in      *store.Writer // nil until the other registry has answered
	at      int64         // bytes that are here
	over    bool
	err     error // why it is over, nil if the blob is in the store
	waiting int   // who asked for it
}

// fetch joins the arrival of a blob, or begins it. The caller leaves it.
func (g *registry) fetch(repo string, desc image.Descriptor) *arrival {
	g.mirror.mu.Lock()
	defer g.mirror.mu.Unlock()
	a := g.mirror.coming[desc.Digest]
	if a != nil && a.join() {
		return a
	}
	before := a
	ctx, stop := context.WithCancel(client.WithoutMirrors(context.Background()))
	a = &arrival{desc: desc, stop: stop, moved: make(chan struct{}), waiting: 1}
	g.mirror.coming[desc.Digest] = a
	go func() {
		if before != nil {
			_, _ = before.wait(ctx, desc.Size) // it has the blob's part until it has ended
		}
		err := g.bring(ctx, repo, a)
		stop()
		g.mirror.mu.Lock()
		if g.mirror.coming[desc.Digest] == a {
			delete(g.mirror.coming, desc.Digest)
		}
		g.mirror.mu.Unlock()
		a.change(func() { a.over, a.err = true, err })
	}()
	return a
}

// bring fetches a blob into the store, unless somebody else does: store.ErrBusy.
func (g *registry) bring(ctx context.Context, repo string, a *arrival) error {
	in, err := g.store.TryWriter(a.desc)
	if errors.Is(err, store.ErrExists) {
		return g.whole(repo)
	}
	if err != nil {
		return err
	}
	defer in.Close()
	body, _, err := g.opts.Upstream.Blob(ctx, g.upstreamRef(repo, a.desc.Digest.String()), a.desc, in.Offset())
	if err != nil {
		return err
	}
	defer body.Close()
	a.change(func() { a.in, a.at = in, in.Offset() })
	buf := make([]byte, 128<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := in.Write(buf[:n]); err != nil {
				return err
			}
			a.change(func() { a.at += int64(n) })
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := in.Commit(); err != nil {
		return err
	}
	return g.whole(repo)
}

// change changes what the waiting look at, and wakes them.
func (a *arrival) change(how func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	how()
	close(a.moved)
	a.moved = make(chan struct{})
}

// join counts one more who waits; not if nobody does any more.
func (a *arrival) join() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == 0 || a.over {
		return false
	}
	a.waiting++
	return true
}

// leave counts one less. When nobody waits the arrival ends; what came is kept.
func (a *arrival) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting--; a.waiting == 0 {
		a.stop()
	}
}

// wait waits for bytes beyond pos and tells how many may be given out: at -1 for
// the other registry's answer, and at the blob's size for its end. The last byte
// is kept back until all are verified, so that nobody has a wrong blob whole.
func (a *arrival) wait(ctx context.Context, pos int64) (at int64, err error) {
	for {
		a.mu.Lock()
		at, err = a.at, a.err
		over, answered, moved := a.over, a.in != nil, a.moved
		a.mu.Unlock()
		if over {
			return a.desc.Size, err
		}
		at = min(at, a.desc.Size-1)
		if answered && (at > pos || pos < 0) {
			return at, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// read reads bytes that are here.
func (a *arrival) read(s *store.Store, p []byte, pos int64) (int, error) {
	a.mu.Lock()
	in := a.in
	a.mu.Unlock()
	if in != nil {
		n, err := in.ReadAt(p, pos)
		if n > 0 || !errors.Is(err, os.ErrClosed) {
			return n, err
		}
	}
	b, err := s.Open(a.desc.Digest)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	n, err := b.ReadAt(p, pos)
	if n > 0 {
		err = nil
	}
	return n, err
}
