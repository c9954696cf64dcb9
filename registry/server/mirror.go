package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
)

// Upstream is the registry that another one mirrors: *client.Client.
type Upstream interface {
	Resolve(ctx context.Context, ref image.Reference) (image.Descriptor, error)
	Manifest(ctx context.Context, ref image.Reference, desc image.Descriptor) (raw []byte, mediaType string, err error)
	Blob(ctx context.Context, ref image.Reference, desc image.Descriptor, offset int64) (io.ReadCloser, int64, error)
	Tags(ctx context.Context, ref image.Reference) ([]string, error)
}

// maxWanted bounds what a mirror remembers of images that it does not have whole.
const maxWanted = 100_000

// mirror is what a registry knows of the one that it mirrors. What was fetched is held for a while as what was
// uploaded is; when an image is here whole, its tag becomes a name of the store.
type mirror struct {
	mu     sync.Mutex
	blobs  map[string]image.Descriptor // by repository and digest: named by manifests that were asked for
	pieces map[string]image.Descriptor // by repository and tag: not here whole
	coming map[image.Digest]*arrival
}

// upstreamRef is what a repository's tag or digest is called at the other registry.
func (g *registry) upstreamRef(repo, at string) image.Reference {
	ref := image.Reference{Domain: g.opts.UpstreamDomain, Path: repo}
	if d, err := image.ParseDigest(at); err == nil {
		return ref.WithDigest(d)
	}
	return ref.WithTag(at)
}

// upstreamError says what became of a request to the other registry.
func upstreamError(err error, unknown func() error) error {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, client.ErrNotFound):
		return unknown()
	case errors.Is(err, client.ErrDenied):
		return &problem{http.StatusForbidden, "DENIED", "the mirrored registry: " + err.Error()}
	case errors.Is(err, client.ErrTooManyTries):
		return &problem{http.StatusTooManyRequests, "TOOMANYREQUESTS", "the mirrored registry: " + err.Error()}
	case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrDigest), errors.Is(err, store.ErrMismatch):
		return &problem{http.StatusBadGateway, "UNKNOWN", "the mirrored registry: " + err.Error()}
	}
	return err
}

// mirrored is the manifest that a tag or digest names at the other registry, or named when it was last heard of.
func (g *registry) mirrored(ctx context.Context, repo, at string) (image.Digest, error) {
	ctx = client.WithoutMirrors(ctx) // this one may be among them
	ref := g.upstreamRef(repo, at)
	desc := image.Descriptor{Digest: ref.Digest}
	if ref.Digest.IsZero() {
		if !image.ValidTag(at) {
			return image.Digest{}, manifestUnknown()
		}
		var err error
		if desc, err = g.opts.Upstream.Resolve(ctx, ref); err != nil {
			if errors.Is(err, client.ErrNotFound) || ctx.Err() != nil {
				return image.Digest{}, upstreamError(err, manifestUnknown)
			}
			if d, ferr := g.find(repo, at); ferr == nil {
				slog.Warn("registry: what is here is served instead", "image", ref.Familiar(), "error", err)
				return d, nil
			}
			return image.Digest{}, upstreamError(err, manifestUnknown)
		}
	}
	// That the repository has it, and not only the store, is to be known: the
	// other registry has said so of a tag's.
	known := ref.Digest.IsZero() || g.recent.has(repo, desc.Digest)
	if !known {
		var err error
		if known, err = g.hasManifest(repo, desc.Digest); err != nil {
			return image.Digest{}, err
		}
	}
	if err := g.recent.add(repo, desc.Digest); err != nil {
		return image.Digest{}, err
	}
	_, err := g.store.Read(desc.Digest, image.MaxManifestSize)
	switch {
	case err == nil && known:
	case err == nil || errors.Is(err, store.ErrNotFound):
		raw, mt, err := g.opts.Upstream.Manifest(ctx, ref, desc)
		if err != nil {
			g.recent.remove(repo, desc.Digest)
			return image.Digest{}, upstreamError(err, manifestUnknown)
		}
		desc.MediaType, desc.Size = mt, int64(len(raw))
		if err := g.store.PutAs(desc, raw); err != nil {
			return image.Digest{}, err
		}
	default:
		return image.Digest{}, err
	}
	doc, err := g.docs.get(g.store, desc.Digest)
	if err != nil {
		return image.Digest{}, err
	}
	g.mirror.mu.Lock()
	if len(g.mirror.blobs)+len(doc.blobs) > maxWanted {
		clear(g.mirror.blobs)
	}
	for _, b := range doc.blobs {
		g.mirror.blobs[repo+"@"+b.Digest.String()] = b
	}
	if ref.Digest.IsZero() {
		if len(g.mirror.pieces) >= maxWanted {
			clear(g.mirror.pieces)
		}
		g.mirror.pieces[repo+":"+at] = doc.desc
	}
	g.mirror.mu.Unlock()
	return desc.Digest, g.whole(repo)
}

// whole gives the repository's tags their names, as far as their images are here.
func (g *registry) whole(repo string) error {
	g.mirror.mu.Lock()
	pieces := map[string]image.Descriptor{}
	for name, target := range g.mirror.pieces {
		if at, tag, _ := cutLast(name, ":"); at == repo {
			pieces[tag] = target
		}
	}
	g.mirror.mu.Unlock()
	for tag, target := range pieces {
		all, err := g.store.Manifests(target)
		if err != nil {
			return err
		}
		for _, m := range all {
			missing, err := g.store.Missing(m, image.Platform{})
			if err != nil || len(missing) > 0 {
				continue
			}
			name, err := g.name("", repo, tag)
			if err != nil {
				return err
			}
			if err := g.store.SetName(name, image.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}); err != nil {
				return err
			}
			g.mirror.mu.Lock()
			delete(g.mirror.pieces, repo+":"+tag)
			g.mirror.mu.Unlock()
			break
		}
	}
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// mirrorBlob sends a blob of the other registry's while it comes. A range is
// answered with the whole.
func (g *registry) mirrorBlob(w http.ResponseWriter, r *http.Request, repo string, d image.Digest) error {
	g.mirror.mu.Lock()
	desc, ok := g.mirror.blobs[repo+"@"+d.String()]
	g.mirror.mu.Unlock()
	if !ok {
		known, err := g.hasBlob(repo, d)
		if err == nil && known {
			err = g.sendBlob(w, r, d)
		} else if err == nil {
			err = blobUnknown()
		}
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", strconv.Quote(d.String()))
	if r.Method == http.MethodHead {
		h.Set("Content-Length", strconv.FormatInt(desc.Size, 10))
		return nil
	}
	if err := g.recent.add(repo, d); err != nil {
		return err
	}
	if _, err := g.store.Stat(d); err == nil {
		return g.sendBlob(w, r, d) // it came by another repository
	}
	a := g.fetch(repo, desc)
	defer a.leave()
	_, err := a.wait(r.Context(), -1)
	if errors.Is(err, store.ErrBusy) {
		// Whoever writes it may be a pull of this store, from this registry.
		var body io.ReadCloser
		if body, _, err = g.opts.Upstream.Blob(client.WithoutMirrors(r.Context()), g.upstreamRef(repo, d.String()), desc, 0); err == nil {
			passBlob(w, body, desc.Size)
			return nil
		}
	}
	if err != nil {
		return upstreamError(err, blobUnknown)
	}
	h.Set("Content-Length", strconv.FormatInt(desc.Size, 10))
	rc := http.NewResponseController(w)
	if err := g.relay(r.Context(), steadyWriter{w, rc}, rc.Flush, a); err != nil {
		// The answer has begun: what can be told is that it is not whole.
		slog.Warn("registry: mirror", "repository", repo, "blob", d.String(), "error", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// relay copies a blob to a client as it arrives. flush sends what w may hold.
func (g *registry) relay(ctx context.Context, w io.Writer, flush func() error, a *arrival) error {
	buf := make([]byte, 128<<10)
	for pos := int64(0); pos < a.desc.Size; {
		at, err := a.wait(ctx, pos)
		if err != nil {
			return err
		}
		n, err := a.read(g.store, buf[:min(int64(len(buf)), at-pos)], pos)
		if err != nil {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if pos += int64(n); pos < a.desc.Size {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	_, err := a.wait(ctx, a.desc.Size)
	return err
}

// mirrorTags lists the tags of the other registry's repository, or if it can't be asked those that are here.
func (g *registry) mirrorTags(ctx context.Context, repo string) (tags []string, known bool, err error) {
	tags, err = g.opts.Upstream.Tags(client.WithoutMirrors(ctx), image.Reference{Domain: g.opts.UpstreamDomain, Path: repo})
	if err == nil {
		return tags, true, nil
	}
	if errors.Is(err, client.ErrNotFound) {
		return nil, false, nil
	}
	if tags, known, lerr := g.tagList(repo); lerr == nil && known {
		return tags, true, nil
	}
	return nil, false, upstreamError(err, nameUnknown)
}
