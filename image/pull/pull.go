// Package pull brings an image from a registry into the image store and
// unpacks its layers while they arrive.
package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// maxAtOnce bounds the layers that are fetched and unpacked at one time.
const maxAtOnce = 6

// Event is one step of a pull or push. ID is the first 12 hex digits of the
// layer's digest. Status is one of Docker's words; of a pull's "Pulling fs
// layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete",
// "Extracting", "Pull complete", "Already exists". Current and Total are bytes
// of the compressed layer, 0 when the status has none.
type Event struct {
	ID      string
	Status  string
	Current int64
	Total   int64
}

// Options says what to pull. Progress may be nil; it is called from several
// goroutines, one at a time, and must not block for long.
type Options struct {
	Store    *store.Store
	Client   *client.Client
	Ref      image.Reference
	Platform image.Platform // zero means the host's
	// Whole keeps all that an index names, for every platform.
	Whole    bool
	Progress func(Event)
	// Verify decides, before anything is unpacked, whether the image may be
	// used: by the digest of its manifest and, before it, of the index that
	// named it. Nil lets everything in.
	Verify func(ctx context.Context, digests []image.Digest) error
	// Drop keeps unpacked layers only: a layer's blob is removed as soon as it is
	// unpacked, and what is on its way at one time takes no more room than the
	// largest layer does. See store.Origin.
	Drop bool
	// Owner is for whom the name is set, as store.SetNameFor has it.
	Owner string
	// Parts is how many ranges of a large layer are fetched side by side, at
	// most; 0 means 4, and 1 that each layer comes in one piece.
	Parts int

	large, minPiece int64 // in bytes; 0 for the usual
	starving        int
}

// Pull brings ref into the store and gives it its name when all of it is
// there. It returns what the name stands for (index or manifest). Of an index
// only the manifest for the platform is fetched, unless all are wanted. What was fetched before a
// failure or the end of ctx is kept for the next try until a collection; after
// one for want of room it is given up.
func Pull(ctx context.Context, o Options) (image.Descriptor, error) {
	p := &puller{Options: o, pin: o.Store.Pin("pull of " + o.Ref.Familiar()), named: o.Platform != (image.Platform{})}
	p.Parts = cmp.Or(o.Parts, defaultParts)
	p.large, p.minPiece = cmp.Or(o.large, large), cmp.Or(o.minPiece, minPiece)
	p.starving = cmp.Or(o.starving, starving)
	defer p.pin.Release()
	if !p.named {
		p.Platform = image.Host()
	}
	target, err := p.resolve(ctx)
	if err != nil {
		return image.Descriptor{}, err
	}
	man, d, err := p.choose(ctx, target)
	if o.Whole && errors.Is(err, image.ErrNoPlatform) && image.IsIndex(target.MediaType) {
		man, d, err = nil, target, nil // nothing in it runs here
	}
	if err != nil {
		return image.Descriptor{}, err
	}
	if o.Verify != nil {
		digests := []image.Digest{target.Digest}
		if d.Digest != target.Digest {
			digests = append(digests, d.Digest)
		}
		if err := o.Verify(ctx, digests); err != nil {
			return image.Descriptor{}, err
		}
	}
	if man != nil {
		if err := p.content(ctx, man); err != nil {
			if errors.Is(err, unix.ENOSPC) {
				p.makeRoom(man)
			}
			return image.Descriptor{}, fmt.Errorf("%s: %w", o.Ref.Familiar(), err)
		}
	}
	if o.Whole && image.IsIndex(target.MediaType) {
		done := d.Digest
		if man == nil {
			done = image.Digest{}
		}
		if err := p.whole(ctx, target, done); err != nil {
			return image.Descriptor{}, fmt.Errorf("%s: %w", o.Ref.Familiar(), err)
		}
	}
	// Nobody cancels from here on: the work is done.
	if err := o.Store.SetNameFor(o.Owner, Name(o.Ref), target); err != nil {
		return image.Descriptor{}, fmt.Errorf("%s: %w", o.Ref.Familiar(), err)
	}
	return target, nil
}

// Name is the name that the store has for a pulled reference. A reference with
// a digest is named by it alone, since its tag was not looked at.
func Name(ref image.Reference) string {
	if !ref.Digest.IsZero() {
		ref = ref.WithDigest(ref.Digest)
	}
	return ref.String()
}

// puller is one pull.
type puller struct {
	Options
	pin   *store.Pin
	named bool // the platform was asked for

	mu sync.Mutex // one event at a time
}

func (p *puller) event(e Event) {
	if p.Progress == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Progress(e)
}

// resolve finds what the reference stands for. Content that a digest names and
// that this repository is known to have needs no registry; what came from
// another one is no proof that this one has it.
func (p *puller) resolve(ctx context.Context) (image.Descriptor, error) {
	if d := p.Ref.Digest; !d.IsZero() && p.known(d) {
		p.pin.Add(d)
		if raw, err := p.Store.Read(d, image.MaxManifestSize); err == nil {
			if mt, err := image.DetectMediaType(raw); err == nil {
				return image.Descriptor{MediaType: mt, Digest: d, Size: int64(len(raw))}, nil
			}
		}
	}
	d, err := p.Client.Resolve(ctx, p.Ref)
	if err == nil {
		p.pin.Add(d.Digest)
	}
	return d, err
}

// known says whether a name here of the same repository leads to d.
func (p *puller) known(d image.Digest) bool {
	names, err := p.Store.Names()
	if err != nil {
		return false
	}
	for _, n := range names {
		r, err := image.ParseReference(n.Name)
		if err != nil || r.Name() != p.Ref.Name() {
			continue
		}
		all, err := p.Store.Manifests(n.Target)
		if n.Target.Digest == d || err == nil && slices.ContainsFunc(all, func(m image.Descriptor) bool { return m.Digest == d }) {
			return true
		}
	}
	return false
}

// choose gets the manifest for the platform, by way of an index if target is
// one, and what names it.
func (p *puller) choose(ctx context.Context, target image.Descriptor) (*image.Manifest, image.Descriptor, error) {
	d := target
	if image.IsIndex(target.MediaType) {
		raw, err := p.document(ctx, target)
		if err != nil {
			return nil, d, err
		}
		ix, err := image.ParseIndex(target.MediaType, raw)
		if err != nil {
			return nil, d, fmt.Errorf("%s: %w", p.Ref.Familiar(), err)
		}
		d, err = ix.Choose(p.Platform)
		if errors.Is(err, image.ErrNoPlatform) {
			return nil, d, noMatch{p.Platform}
		}
		if err != nil {
			return nil, d, fmt.Errorf("%s: %w", p.Ref.Familiar(), err)
		}
		p.named = false // the index has vouched for it
		p.pin.Add(d.Digest)
	}
	m, err := p.manifest(ctx, d)
	return m, d, err
}

// noMatch words a missing platform as Docker does.
type noMatch struct{ p image.Platform }

func (e noMatch) Error() string {
	return fmt.Sprintf("no matching manifest for %s in the manifest list entries", e.p)
}
func (e noMatch) Is(target error) bool {
	return target == image.ErrNoPlatform || target == client.ErrNotFound
}

func (p *puller) manifest(ctx context.Context, d image.Descriptor) (*image.Manifest, error) {
	raw, err := p.document(ctx, d)
	if err != nil {
		return nil, err
	}
	m, err := image.ParseManifest(d.MediaType, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Ref.Familiar(), err)
	}
	if !image.IsConfig(m.Config.MediaType) {
		return nil, fmt.Errorf("%s is not a container image: its config is of type %q", p.Ref.Familiar(), m.Config.MediaType)
	}
	for _, l := range m.Layers {
		if !image.IsLayer(l.MediaType) {
			return nil, fmt.Errorf("%s is not a container image: it has a layer of type %q", p.Ref.Familiar(), l.MediaType)
		}
	}
	return m, nil
}

// document gets a manifest or index, from the store if it is there.
func (p *puller) document(ctx context.Context, d image.Descriptor) ([]byte, error) {
	raw, err := p.Store.Read(d.Digest, image.MaxManifestSize)
	if err == nil || !errors.Is(err, store.ErrNotFound) {
		return raw, err
	}
	raw, _, err = p.Client.Manifest(ctx, p.Ref, d)
	if err != nil {
		return nil, err
	}
	d.Size = int64(len(raw))
	w, err := p.Store.Writer(ctx, d)
	if errors.Is(err, store.ErrExists) {
		return raw, nil
	}
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if w.Offset() > 0 {
		if err := w.Restart(); err != nil {
			return nil, err
		}
	}
	if _, err := w.Write(raw); err != nil {
		return nil, err
	}
	return raw, w.Commit()
}

// content brings config and layers, all at once.
func (p *puller) content(ctx context.Context, m *image.Manifest) error {
	p.pin.Add(m.Config.Digest)
	jobs := map[image.Digest]*job{}
	var order []*job
	for i, l := range m.Layers {
		p.pin.Add(l.Digest)
		j := jobs[l.Digest]
		if j == nil {
			j = &job{p: p, desc: l, configured: make(chan struct{})}
			jobs[l.Digest] = j
			order = append(order, j)
		}
		j.places = append(j.places, i)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		cfg, err := p.config(ctx, m)
		if err != nil {
			return err
		}
		for _, j := range order {
			j.diffID = cfg.DiffIDs[j.places[0]]
			for _, i := range j.places {
				if cfg.DiffIDs[i] != j.diffID {
					return fmt.Errorf("layer %s stands for different trees in the config", j.desc.Digest.Short())
				}
			}
			p.pin.Add(j.diffID)
			close(j.configured)
		}
		return nil
	})
	room := newRoom(order, p.Drop)
	for _, j := range order {
		g.Go(func() error { return j.run(ctx, room) })
	}
	return g.Wait()
}

// makeRoom removes what came of the blobs that are not complete: on a full disk
// everybody needs the room, and this pull can't go on without more of it.
func (p *puller) makeRoom(m *image.Manifest) {
	for _, l := range append([]image.Descriptor{m.Config}, m.Layers...) {
		_ = p.Store.DropPart(l.Digest) // the pull has failed already
	}
}

// config gets the configuration and checks it against the manifest.
func (p *puller) config(ctx context.Context, m *image.Manifest) (*image.Config, error) {
	if m.Config.Size > image.MaxConfigSize {
		return nil, fmt.Errorf("config of %d bytes is too large", m.Config.Size)
	}
	if err := p.blob(ctx, m.Config); err != nil {
		return nil, err
	}
	raw, err := p.Store.Read(m.Config.Digest, image.MaxConfigSize)
	if err != nil {
		return nil, err
	}
	cfg, err := image.ParseConfig(raw)
	if err != nil {
		return nil, err
	}
	if len(cfg.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("the manifest has %d layers, its config %d", len(m.Layers), len(cfg.DiffIDs))
	}
	if p.named && p.Platform.Score(cfg.Platform) == 0 {
		return nil, fmt.Errorf("%w for %s: image was found but does not match the specified platform: it is for %s", image.ErrNoPlatform, p.Platform, cfg.Platform)
	}
	return cfg, nil
}

// blob fetches a blob that is only stored.
func (p *puller) blob(ctx context.Context, d image.Descriptor) error {
	w, err := p.Store.Writer(ctx, d)
	if errors.Is(err, store.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	_, err = p.fetch(ctx, d, w, nil, func(int64) {})
	return err
}

// sleep waits between tries.
func sleep(ctx context.Context, try int) error {
	t := time.NewTimer(200 * time.Millisecond << min(try-1, 4))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
