package pull

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
)

// job is one layer on its way: fetched and unpacked.
type job struct {
	p      *puller
	desc   image.Descriptor
	places []int // where in the manifest

	configured chan struct{} // closed when diffID is known
	diffID     image.Digest
}

func (j *job) event(status string, current int64) {
	e := Event{ID: j.desc.Digest.Short(), Status: status, Current: current}
	if status == "Downloading" || status == "Extracting" {
		e.Total = j.desc.Size
	}
	j.p.event(e)
}

// known waits for the config.
func (j *job) known(ctx context.Context) error {
	select {
	case <-j.configured:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (j *job) run(ctx context.Context, slots chan struct{}) error {
	if _, err := j.p.Store.Stat(j.desc.Digest); err == nil {
		if err := j.known(ctx); err != nil {
			return err
		}
		if j.p.Store.Layers.Has(j.diffID) {
			j.event("Already exists", 0)
			return nil
		}
	}
	j.event("Pulling fs layer", 0)
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	default:
		j.event("Waiting", 0)
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := j.fetch(ctx)
	if errors.Is(err, store.ErrExists) {
		j.event("Download complete", 0)
		return j.unpackStored(ctx)
	}
	return err
}

// fetch fetches and unpacks. Another pull of the same blob may hold the ingest;
// when it is done, or gave up, this one goes on from there.
func (j *job) fetch(ctx context.Context) error {
	if j.p.inParts(j.desc) {
		parts, err := j.p.Store.Parts(ctx, j.desc)
		if err != nil {
			return err
		}
		err = j.unpackParts(ctx, parts)
		parts.Close()
		switch {
		case errors.Is(err, errStale) && j.p.Client.Mirrored(j.p.Ref):
			ctx = client.WithoutMirrors(ctx)
		case !errors.Is(err, client.ErrNoRange) && !errors.Is(err, errStale):
			return err
		}
	}
	w, err := j.p.Store.Writer(ctx, j.desc)
	if err != nil {
		return err
	}
	defer w.Close()
	return j.unpackArriving(ctx, w)
}

// unpackArriving fetches the layer and unpacks it at the same time.
func (j *job) unpackArriving(ctx context.Context, w *store.Writer) error {
	resumed := w.Offset() > 0
	s := newStream(w.Partial())
	var fetched atomic.Bool
	unpacked := make(chan error, 1)
	go func() {
		defer s.leave()
		unpacked <- j.unpack(ctx, s, fetched.Load)
	}()

	again, err := j.p.fetch(ctx, j.desc, w, s, j.downloading())
	if err != nil {
		s.end(err)
		<-unpacked
		return err
	}
	fetched.Store(true)
	j.event("Download complete", 0)
	s.end(io.EOF)
	if err := <-unpacked; err != nil {
		if context.Cause(ctx) != nil {
			return context.Cause(ctx)
		}
		if !again && !resumed {
			return err
		}
		// What came first was bad, and was replaced after the unpacking had
		// read it; or what was there before was closed before it was read.
		// What is stored now is verified.
		return j.unpackStored(ctx)
	}
	j.event("Pull complete", 0)
	return nil
}

// unpackStored unpacks a layer that is in the store.
func (j *job) unpackStored(ctx context.Context) error {
	b, err := j.p.Store.Open(j.desc.Digest)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := j.unpack(ctx, b, func() bool { return true }); err != nil {
		return err
	}
	j.event("Pull complete", 0)
	return nil
}

// unpack reads the layer from r once the config says what it must become.
// Progress is told only while show is true: before that the download's counts.
func (j *job) unpack(ctx context.Context, r io.Reader, show func() bool) error {
	if err := j.known(ctx); err != nil {
		return err
	}
	tick := ticker()
	_, err := j.p.Store.Layers.Unpack(ctx, &counted{r: r, f: func(at int64) {
		if show() && (tick() || at == j.desc.Size) {
			j.event("Extracting", at)
		}
	}}, j.desc.MediaType, j.diffID)
	return err
}

// ticker tells ten times a second that it is time to report.
func ticker() func() bool {
	var last time.Time
	return func() bool {
		now := time.Now()
		if now.Sub(last) < 100*time.Millisecond {
			return false
		}
		last = now
		return true
	}
}

// counted tells how far a reader is.
type counted struct {
	r  io.Reader
	at int64
	f  func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		c.at += int64(n)
		c.f(c.at)
	}
	return n, err
}
