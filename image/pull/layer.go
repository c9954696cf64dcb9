package pull

import (
	"context"
	"errors"
	"io"
	"slices"
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

// present tells whether there is nothing to do. It waits for the config if that
// depends on it.
func (j *job) present(ctx context.Context) (bool, error) {
	_, err := j.p.Store.Stat(j.desc.Digest)
	if errors.Is(err, store.ErrNotFound) && j.p.Drop {
		_, err = j.p.Store.Origin(j.desc.Digest)
	}
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = j.known(ctx)
	}
	return err == nil && j.p.Store.Layers.Has(j.diffID), err
}

func (j *job) run(ctx context.Context, room *room) error {
	done, err := j.present(ctx)
	if err != nil {
		return err
	}
	if done {
		j.event("Already exists", 0)
		if j.p.Drop {
			j.another(ctx)
			return nil // a blob that is here was brought back for a push or a save, and goes when that ends
		}
		return j.settle()
	}
	j.event("Pulling fs layer", 0)
	release, err := room.enter(ctx, j.desc, func() { j.event("Waiting", 0) })
	if err != nil {
		return err
	}
	defer release()
	err = j.fetch(ctx)
	if errors.Is(err, store.ErrExists) {
		j.event("Download complete", 0)
		err = j.unpackStored(ctx)
	}
	if err != nil {
		return err
	}
	return j.settle()
}

// settle leaves of a layer that is unpacked what is to be kept.
func (j *job) settle() error {
	if !j.p.Drop {
		return j.p.Store.Keep(j.desc.Digest)
	}
	return j.p.Store.Drop(j.desc.Digest)
}

// arrived says of a blob that was fetched whole that it need not be kept. Before
// that nobody knows whether the registry has what its manifest names.
func (j *job) arrived(ctx context.Context) error {
	if !j.p.Drop {
		return nil
	}
	if err := j.known(ctx); err != nil {
		return err
	}
	return j.p.Store.SetOrigin(store.Origin{Blob: j.desc, DiffID: j.diffID, From: []image.Reference{j.p.Ref}})
}

// another notes of a blob which is not kept that this repository has it too:
// where it came from may be gone one day. That it is not noted costs nothing now.
func (j *job) another(ctx context.Context) {
	o, err := j.p.Store.Origin(j.desc.Digest)
	if err != nil || slices.ContainsFunc(o.From, func(r image.Reference) bool { return r.Name() == j.p.Ref.Name() }) {
		return
	}
	if has, err := j.p.Client.HasBlob(ctx, j.p.Ref, j.desc.Digest); err == nil && has {
		o.From = []image.Reference{j.p.Ref}
		_ = j.p.Store.SetOrigin(o)
	}
}

// fetch fetches and unpacks. Another pull of the same blob may hold the ingest;
// when it is done, or gave up, this one goes on from there.
func (j *job) fetch(ctx context.Context) error {
	if j.p.inParts(j.desc) {
		parts, err := j.p.Store.Parts(ctx, j.desc)
		if err != nil {
			return err
		}
		if done, err := j.present(ctx); done || err != nil {
			return errors.Join(err, parts.Close())
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
	if done, err := j.present(ctx); done || err != nil {
		return err
	}
	return j.unpackArriving(ctx, w)
}

// unpackArriving fetches the layer and unpacks it at the same time.
func (j *job) unpackArriving(ctx context.Context, w *store.Writer) error {
	resumed := w.Offset() > 0
	s := newStream(w.Partial(), j.desc.Size)
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
	if err := j.arrived(ctx); err != nil {
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
	if errors.Is(err, store.ErrNotFound) && j.known(ctx) == nil && j.p.Store.Layers.Has(j.diffID) {
		return nil // another pull has unpacked it, and dropped it
	}
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
