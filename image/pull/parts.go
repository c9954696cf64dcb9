package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"

	"golang.org/x/sync/errgroup"
)

const (
	// defaultParts is how many ranges of a large blob come side by side, where
	// the unpacking waits for the network: where it does not, more transfers
	// would only cost.
	defaultParts = 4
	// large is from what size on, in bytes.
	large = 32 << 20
	// A request asks for a sixteenth of the blob within these bounds: each
	// costs a round trip or, where registries redirect, three.
	minPiece = 8 << 20
	maxPiece = 64 << 20
	// starving is for how many blocks one after the other the unpacking must
	// have waited.
	starving = 4
)

// inParts tells whether a blob is fetched in ranges side by side.
func (p *puller) inParts(d image.Descriptor) bool {
	return p.Parts > 1 && d.Size >= p.large && d.Size <= store.MaxParts
}

// unpackParts fetches a layer in ranges and unpacks it at the same time. It
// fails with client.ErrNoRange if the registry serves no ranges.
func (j *job) unpackParts(ctx context.Context, parts *store.Parts) error {
	missing := parts.Missing()
	resumed := len(missing) != 1 || missing[0].N != j.desc.Size
	// The unpacking reads what arrives, and so does the digest; both have ended
	// when this function ends.
	var g errgroup.Group
	reader := parts.Reader()
	var unpackErr error
	var fetched atomic.Bool
	g.Go(func() error {
		unpackErr = j.unpack(ctx, reader, fetched.Load)
		return nil
	})
	g.Go(parts.Verify)
	f := fetcher{p: j.p, desc: j.desc, parts: parts, reader: reader, at: j.desc.Size, report: j.downloading()}
	for _, r := range missing {
		f.at -= r.N
	}
	err := f.run(ctx, missing)
	if err != nil {
		parts.Fail(err)
	}
	fetched.Store(true)
	if verr := g.Wait(); err == nil {
		err = verr
	}
	if err != nil {
		return err
	}
	if err := parts.Commit(); err != nil {
		if (resumed || j.p.Client.Mirrored(j.p.Ref)) && context.Cause(ctx) == nil {
			return errStale
		}
		return fmt.Errorf("blob %s: %w", j.desc.Digest.Short(), err)
	}
	if err := j.arrived(ctx); err != nil {
		return err
	}
	j.event("Download complete", 0)
	if unpackErr != nil {
		if context.Cause(ctx) != nil {
			return context.Cause(ctx)
		}
		return unpackErr
	}
	j.event("Pull complete", 0)
	return nil
}

// errStale says that what an earlier try left, or a mirror, may be to blame for
// a wrong digest; what was there is gone now.
var errStale = errors.New("the parts do not fit")

// downloading reports progress, from any goroutine.
func (j *job) downloading() func(int64) {
	tick := ticker()
	return func(at int64) {
		if at == j.desc.Size {
			j.event("Downloading", at)
			j.event("Verifying Checksum", 0)
		} else if tick() {
			j.event("Downloading", at)
		}
	}
}

// fetcher brings the missing ranges of one blob.
type fetcher struct {
	p      *puller
	desc   image.Descriptor
	parts  *store.Parts
	reader *store.PartsReader // the unpacking's
	report func(int64)

	mu     sync.Mutex
	todo   []store.Range
	at     int64 // bytes that are there
	waited int   // blocks since the unpacking did not wait
	more   func()
}

// run fetches what is missing: one range after the other, and others beside it
// once the unpacking is found to wait, as long as the registry is not asked for
// too much at once.
func (f *fetcher) run(ctx context.Context, missing []store.Range) error {
	f.todo = pieces(missing, f.p.piece(f.desc.Size))
	g, ctx := errgroup.WithContext(ctx)
	f.more = sync.OnceFunc(func() {
		for range f.p.Parts - 1 {
			release, ok := client.Spare(f.p.Ref)
			if !ok {
				return
			}
			g.Go(func() error {
				defer release()
				return f.work(ctx)
			})
		}
	})
	g.Go(func() error { return f.work(ctx) })
	return g.Wait()
}

// piece is how much one request asks for of a blob of this size.
func (p *puller) piece(size int64) int64 {
	n := min(max(size/16, p.minPiece), maxPiece)
	return (n + store.Block - 1) / store.Block * store.Block
}

// pieces cuts ranges to at most n bytes; all but the last begin and end with a
// block.
func pieces(missing []store.Range, n int64) []store.Range {
	var out []store.Range
	for _, r := range missing {
		for r.N > n {
			out = append(out, store.Range{From: r.From, N: n})
			r.From, r.N = r.From+n, r.N-n
		}
		out = append(out, r)
	}
	return out
}

func (f *fetcher) next() (r store.Range, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.todo) == 0 {
		return r, false
	}
	r, f.todo = f.todo[0], f.todo[1:]
	return r, true
}

// came counts bytes; waits tells, when they end a block, whether the unpacking
// waited for them.
func (f *fetcher) came(n int, block, waits bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at += int64(n)
	f.report(f.at)
	switch {
	case block && waits:
		if f.waited++; f.waited >= f.p.starving {
			f.more()
		}
	case block:
		f.waited = 0
	}
}

// work fetches pieces until none is left.
func (f *fetcher) work(ctx context.Context) error {
	buf := make([]byte, 128<<10)
	for {
		r, ok := f.next()
		if !ok {
			return nil
		}
		s := f.parts.Section(r)
		if err := f.p.persist(ctx, f.desc, s.At, func() error { return f.piece(ctx, s, buf) }); err != nil {
			return err
		}
	}
}

// piece copies from one request.
func (f *fetcher) piece(ctx context.Context, s *store.Section, buf []byte) error {
	body, err := f.p.Client.BlobRange(ctx, f.p.Ref, f.desc, s.At(), s.Left())
	if err != nil {
		return err
	}
	defer body.Close()
	for {
		n, err := body.Read(buf)
		if n > 0 {
			before, waits := s.At()/store.Block, f.reader.Waiting()
			if _, err := s.Write(buf[:n]); err != nil {
				return err
			}
			f.came(n, s.At()/store.Block > before, waits)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
