package engine

import (
	"context"
	"errors"
	"slices"
	"strings"

	"cale/build/keep"
	"cale/image"
	"cale/image/store"
)

// Why says what keeps an image, a blob or an unpacked layer.
type Why struct {
	Kind    string // image, index, manifest, config, layer (unpacked), packed layer or blob
	Digest  string
	Size    int64 // of the blob, in bytes; 0 if only the unpacked layer is here
	Holders []WhyHolder
}

// WhyHolder is one thing that keeps content. Path are the digests from what it holds to what was asked for.
type WhyHolder struct {
	Kind string // tag, untagged image, container, registry, build, work (that goes on now) or lease
	Name string
	Path []string
}

// Why tells what holds what is called by an image's name, or by the digest (or a prefix of it) of an image, a blob or
// an unpacked layer.
func (e *Engine) Why(ctx context.Context, asked string) (Why, error) {
	defer e.begin()()
	w, want, err := e.whatIs(asked)
	if err != nil {
		return w, err
	}
	holders, err := e.store.Holders(ctx, want...)
	if err != nil {
		return w, err
	}
	for _, h := range holders {
		if n := len(h.Path); w.Kind == "blob" && n > 1 && e.kindOf(h.Path[n-2]) == "manifest" {
			w.Kind = "packed layer"
		}
		kind, name := e.holder(h)
		out := WhyHolder{Kind: kind, Name: name}
		for _, d := range h.Path {
			out.Path = append(out.Path, d.String())
		}
		w.Holders = append(w.Holders, out)
	}
	return w, nil
}

// whatIs finds what is asked for, and the digests any of which keeps it.
func (e *Engine) whatIs(asked string) (Why, []image.Digest, error) {
	target, _, err := e.resolveTarget(asked)
	if err == nil {
		want := []image.Digest{target.Digest}
		if img, err := e.loadImage(target, image.Platform{}); err == nil {
			want = append(want, img.ManifestDescriptor.Digest, img.ID)
		}
		size, _ := e.store.Stat(target.Digest)
		return Why{Kind: "image", Digest: target.Digest.String(), Size: size}, want, nil
	}
	if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInvalid) {
		return Why{}, nil, err
	}
	d, err := e.contentByPrefix(asked)
	if err != nil {
		return Why{}, nil, err
	}
	w := Why{Kind: e.kindOf(d), Digest: d.String()}
	w.Size, _ = e.store.Stat(d)
	return w, []image.Digest{d}, nil
}

// contentByPrefix finds the one blob or layer whose digest begins so.
func (e *Engine) contentByPrefix(asked string) (image.Digest, error) {
	prefix := asked
	if !strings.Contains(asked, ":") {
		prefix = "sha256:" + asked
	}
	_, hex, _ := strings.Cut(prefix, ":")
	if len(hex) < 4 || strings.Trim(hex, "0123456789abcdef") != "" {
		return image.Digest{}, notFound("No such image, blob or layer: %s", asked)
	}
	all, err := e.store.Blobs()
	if err != nil {
		return image.Digest{}, err
	}
	layers, err := e.store.Layers.List()
	if err != nil {
		return image.Digest{}, err
	}
	var found image.Digest
	for _, d := range append(all, layers...) {
		switch {
		case !strings.HasPrefix(d.String(), prefix) || d == found:
		case !found.IsZero():
			return found, invalid("digest prefix %s is not unique", asked)
		default:
			found = d
		}
	}
	if found.IsZero() {
		return found, notFound("No such image, blob or layer: %s", asked)
	}
	return found, nil
}

// kindOf tells what a blob is by what it holds.
func (e *Engine) kindOf(d image.Digest) string {
	if e.store.Layers.There(d) {
		return "layer"
	}
	raw, err := e.store.Read(d, image.MaxManifestSize)
	if err != nil {
		return "blob"
	}
	switch mt, err := image.DetectMediaType(raw); {
	case err == nil && image.IsIndex(mt):
		return "index"
	case err == nil && image.IsManifest(mt):
		return "manifest"
	}
	if c, err := image.ParseConfig(raw); err == nil && c.Platform.OS != "" {
		return "config"
	}
	return "blob"
}

// holder names what holds content.
func (e *Engine) holder(h store.Holder) (kind, name string) {
	switch {
	case h.Work != "":
		return "work", h.Work
	case h.Name != "":
		if _, err := image.ParseDigest(h.Name); err == nil {
			return "untagged image", h.Name
		}
		if r, err := image.ParseReference(h.Name); err == nil {
			return "tag", e.familiar(r)
		}
		return "tag", h.Name
	}
	e.mu.Lock()
	c := e.containers[h.Lease]
	e.mu.Unlock()
	if c != nil {
		return "container", c.name()
	}
	if rest, ok := strings.CutPrefix(h.Lease, "registry/"); ok {
		return "registry", rest
	}
	if keep.IsLease(h.Lease) {
		return "build", "build cache, or a build or working container"
	}
	return "lease", h.Lease
}

// usersOf lists the containers that stand on a layer.
func (e *Engine) usersOf(d image.Digest) []*container {
	return slices.DeleteFunc(e.all(), func(c *container) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !slices.Contains(c.rec.Layers, d)
	})
}
