// Package push sends an image of the store to a registry.
package push

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cale/image"
	"cale/image/pull"
	"cale/image/store"
	"cale/registry/client"

	"golang.org/x/sync/errgroup"
)

const (
	// maxAtOnce bounds the blobs that are sent at one time.
	maxAtOnce = 5
	// maxDepth bounds indexes within indexes.
	maxDepth = 4
)

// Options says what to push. Name is the store's name to read; empty means
// Ref's. Platform, when set, sends only that platform's manifest of an index.
// Progress may be nil; it is called from several goroutines, one at a time, with
// a status of Docker's words: "Preparing", "Waiting", "Pushing", "Pushed",
// "Layer already exists", "Mounted from REPOSITORY".
type Options struct {
	Store    *store.Store
	Client   *client.Client
	Ref      image.Reference
	Name     string
	Platform image.Platform
	Progress func(pull.Event)
}

// Push sends the image and returns what its name stands for at the registry.
// An index of which the store has only some images (after a pull for one
// platform) can't be sent; then the manifest of this machine's platform is
// sent in its place.
func Push(ctx context.Context, o Options) (image.Descriptor, error) {
	p := &pusher{Options: o}
	if o.Name == "" {
		p.Name = o.Ref.String()
	}
	target, err := o.Store.Resolve(p.Name)
	if errors.Is(err, store.ErrNotFound) {
		return target, notHere{o.Ref}
	}
	if err != nil {
		return target, err
	}
	pin := o.Store.Pin("push of " + o.Ref.Familiar())
	defer pin.Release()
	pin.Add(target.Digest)

	if target, err = p.narrow(target); err != nil {
		return target, fmt.Errorf("%s: %w", o.Ref.Familiar(), err)
	}
	if err := p.collect(target, 0); err != nil {
		return target, fmt.Errorf("%s: %w", o.Ref.Familiar(), err)
	}
	if err := p.blobs(ctx); err != nil {
		return target, err
	}
	p.noteOrigins()
	for i, m := range p.manifests {
		ref := o.Ref.WithDigest(m.desc.Digest)
		if i == len(p.manifests)-1 && o.Ref.Tag != "" {
			ref = o.Ref.WithTag(o.Ref.Tag)
		}
		if err := o.Client.PushManifest(ctx, ref, m.desc.MediaType, m.raw); err != nil {
			return target, err
		}
	}
	return target, nil
}

// notHere words as Docker does that there is nothing to push.
type notHere struct{ ref image.Reference }

func (e notHere) Error() string {
	return "An image does not exist locally with the tag: " + e.ref.FamiliarName()
}
func (e notHere) Is(target error) bool { return target == store.ErrNotFound }

type pusher struct {
	Options
	manifests []document // children first
	layers    []image.Descriptor
	others    []image.Descriptor // configs and the like: not shown
	seen      map[image.Digest]bool
	sources   map[image.Digest]string // repositories of the registry that may have a blob

	mu sync.Mutex
}

type document struct {
	desc image.Descriptor
	raw  []byte
}

func (p *pusher) event(id image.Digest, status string, current, total int64) {
	if p.Progress == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Progress(pull.Event{ID: id.Short(), Status: status, Current: current, Total: total})
}

// narrow decides what of an index is sent.
func (p *pusher) narrow(target image.Descriptor) (image.Descriptor, error) {
	if !image.IsIndex(target.MediaType) {
		return target, nil
	}
	want, asked := p.Platform, p.Platform != (image.Platform{})
	if !asked {
		probe := &pusher{Options: p.Options}
		err := probe.collect(target, 0)
		if err == nil || !errors.Is(err, store.ErrNotFound) {
			return target, err
		}
		want = image.Host()
	}
	raw, err := p.Store.Read(target.Digest, image.MaxManifestSize)
	if err != nil {
		return target, err
	}
	ix, err := image.ParseIndex(target.MediaType, raw)
	if err != nil {
		return target, err
	}
	return ix.Choose(want)
}

// collect lists what hangs below d, and finds out whether it is all here.
func (p *pusher) collect(d image.Descriptor, depth int) error {
	if p.seen == nil {
		p.seen = map[image.Digest]bool{}
	}
	if p.seen[d.Digest] {
		return nil
	}
	p.seen[d.Digest] = true
	raw, err := p.Store.Read(d.Digest, image.MaxManifestSize)
	if err != nil {
		return err
	}
	if image.IsIndex(d.MediaType) {
		ix, err := image.ParseIndex(d.MediaType, raw)
		if err != nil {
			return err
		}
		for _, m := range ix.Manifests {
			if depth == maxDepth {
				return fmt.Errorf("indexes nested more than %d deep", maxDepth)
			}
			if err := p.collect(m, depth+1); err != nil {
				return err
			}
		}
	} else {
		m, err := image.ParseManifest(d.MediaType, raw)
		if err != nil {
			return err
		}
		if err := p.blob(m.Config, &p.others); err != nil {
			return err
		}
		for _, l := range m.Layers {
			list := &p.layers
			if !image.IsLayer(l.MediaType) {
				list = &p.others
			}
			if err := p.blob(l, list); err != nil {
				return err
			}
		}
	}
	p.manifests = append(p.manifests, document{d, raw})
	return nil
}

func (p *pusher) blob(d image.Descriptor, list *[]image.Descriptor) error {
	if p.seen[d.Digest] {
		return nil
	}
	p.seen[d.Digest] = true
	size, err := p.Store.Known(d.Digest)
	if errors.Is(err, store.ErrNotFound) && image.IsForeign(d.MediaType) {
		return nil // it stays where its URLs say
	}
	if err != nil {
		return err
	}
	if size != d.Size {
		return fmt.Errorf("blob %s has %d bytes, its manifest says %d", d.Digest.Short(), size, d.Size)
	}
	*list = append(*list, d)
	return nil
}

// blobs sends config and layers.
func (p *pusher) blobs(ctx context.Context) error {
	for _, l := range p.layers {
		p.event(l.Digest, "Preparing", 0, 0)
	}
	p.findSources()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxAtOnce)
	for i, l := range p.layers {
		if i >= maxAtOnce {
			p.event(l.Digest, "Waiting", 0, 0)
		}
		g.Go(func() error {
			return p.send(ctx, l, func(status string, at int64) {
				total := int64(0)
				if status == "Pushing" {
					total = l.Size
				}
				p.event(l.Digest, status, at, total)
			})
		})
	}
	for _, d := range p.others {
		g.Go(func() error { return p.send(ctx, d, func(string, int64) {}) })
	}
	return g.Wait()
}

// send brings one blob to the registry by the cheapest way.
func (p *pusher) send(ctx context.Context, d image.Descriptor, report func(status string, at int64)) error {
	has, err := p.Client.HasBlob(ctx, p.Ref, d.Digest)
	if err != nil {
		return err
	}
	if has {
		report("Layer already exists", 0)
		return nil
	}
	if from := p.sources[d.Digest]; from != "" {
		// Whatever hinders it, sending the bytes may still work.
		if ok, err := p.Client.MountBlob(ctx, p.Ref, d.Digest, from); err == nil && ok {
			report("Mounted from "+from, 0)
			return nil
		}
	}
	if err := pull.Restore(ctx, p.Store, p.Client, d.Digest); err != nil {
		return err
	}
	b, err := p.Store.Open(d.Digest)
	if err != nil {
		return err
	}
	defer b.Close()
	var last time.Time
	err = p.Client.PushBlob(ctx, p.Ref, d, b, func(at int64) {
		if now := time.Now(); at == d.Size || now.Sub(last) >= 100*time.Millisecond {
			last = now
			report("Pushing", at)
		}
	})
	if err != nil {
		return err
	}
	report("Pushed", 0)
	return nil
}

// noteOrigins notes of layers that are not kept packed that this repository has
// them too. That it is not noted is no reason to call the push failed.
func (p *pusher) noteOrigins() {
	for _, l := range p.layers {
		if o, err := p.Store.Origin(l.Digest); err == nil {
			o.From = []image.Reference{p.Ref}
			_ = p.Store.SetOrigin(o)
		}
	}
}

// findSources guesses from the names in the store which other repositories of
// the registry have the blobs, and knows it of those that are not kept.
func (p *pusher) findSources() {
	const enough = 200
	p.sources = map[image.Digest]string{}
	defer func() {
		for _, l := range p.layers {
			o, err := p.Store.Origin(l.Digest)
			if err != nil {
				continue
			}
			for _, from := range o.From {
				if from.Domain == p.Ref.Domain && from.Path != p.Ref.Path {
					p.sources[l.Digest] = from.Path
				}
			}
		}
	}()
	names, err := p.Store.Names()
	if err != nil {
		return // only a saving
	}
	looked := 0
	for _, n := range names {
		ref, err := image.ParseReference(n.Name)
		if err != nil || ref.Domain != p.Ref.Domain || ref.Path == p.Ref.Path {
			continue
		}
		if looked++; looked > enough {
			return
		}
		other := &pusher{Options: p.Options}
		other.collect(n.Target, 0) // what it found before it failed will do
		for _, l := range other.layers {
			if p.seen[l.Digest] {
				p.sources[l.Digest] = ref.Path
			}
		}
	}
}
