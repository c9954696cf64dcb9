package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	"cale/image"
	"cale/image/store"
)

// maxTags bounds the tags that one request sets.
const maxTags = 100

// find is the manifest that a tag or digest names in a repository.
func (g *registry) find(repo, at string) (image.Digest, error) {
	if d, err := image.ParseDigest(at); err == nil {
		ok, err := g.hasManifest(repo, d)
		if err == nil && !ok {
			err = manifestUnknown()
		}
		return d, err
	}
	if !image.ValidTag(at) {
		return image.Digest{}, manifestUnknown()
	}
	domains, _ := g.domains()
	for _, domain := range domains {
		d, err := g.store.Resolve(image.Reference{Domain: domain, Path: repo, Tag: at}.String())
		if err == nil {
			return d.Digest, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return image.Digest{}, err
		}
	}
	return image.Digest{}, manifestUnknown()
}

func (g *registry) getManifest(w http.ResponseWriter, r *http.Request, repo, at string) error {
	var d image.Digest
	var err error
	if g.opts.Upstream != nil {
		d, err = g.mirrored(r.Context(), repo, at)
	} else {
		d, err = g.find(repo, at)
	}
	if err != nil {
		return err
	}
	raw, err := g.store.Read(d, image.MaxManifestSize)
	if errors.Is(err, store.ErrNotFound) {
		return manifestUnknown()
	}
	if err != nil {
		return err
	}
	doc, err := g.docs.get(g.store, d)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", strconv.Quote(d.String()))
	if has(r, d) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", doc.desc.MediaType)
	h.Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		w.Write(raw)
	}
	return nil
}

func (g *registry) putManifest(w http.ResponseWriter, r *http.Request, repo, at string) error {
	if err := g.writable(); err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(steady(w, r.Body), image.MaxManifestSize+1))
	if err != nil {
		return &problem{http.StatusBadRequest, "MANIFEST_INVALID", "the manifest did not arrive whole"}
	}
	if len(raw) > image.MaxManifestSize {
		return &problem{http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("the manifest is larger than %d bytes", image.MaxManifestSize)}
	}
	d := image.FromBytes(raw)
	tags := []string{at}
	if want, err := image.ParseDigest(at); err == nil {
		if d, err = digestAs(want, raw); err != nil {
			return err
		}
		// The specification's next version lets one request set several tags.
		tags = r.URL.Query()["tag"]
	}
	if len(tags) > maxTags || slices.ContainsFunc(tags, func(t string) bool { return !image.ValidTag(t) }) {
		return &problem{http.StatusBadRequest, "TAG_INVALID", "invalid tag or digest"}
	}
	doc, err := readManifest(r.Header.Get("Content-Type"), d, raw)
	if err != nil {
		return err
	}
	pin := g.store.Pin("push to the registry, of " + repo)
	defer pin.Release()
	pin.Add(d)
	if err := g.complete(repo, doc, pin); err != nil {
		return err
	}
	if err := g.store.PutAs(image.Descriptor{MediaType: doc.desc.MediaType, Digest: d, Size: doc.desc.Size}, raw); err != nil {
		return err
	}
	if err := g.enter(r.Host, repo, tags, doc); err != nil {
		return err
	}
	// What waited for its manifest is held by it now, and goes with it.
	for _, b := range doc.blobs {
		g.recent.remove(repo, b.Digest)
	}
	h := w.Header()
	if at == d.String() {
		for _, t := range tags {
			h.Add("OCI-Tag", t)
		}
	}
	h.Set("Location", "/v2/"+repo+"/manifests/"+at)
	h.Set("Docker-Content-Digest", d.String())
	if !doc.subject.IsZero() {
		h.Set("OCI-Subject", doc.subject.String())
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func digestAs(want image.Digest, raw []byte) (image.Digest, error) {
	h := want.Hash()
	h.Write(raw)
	if got := image.FromHash(h); got != want {
		return got, &problem{http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content"}
	}
	return want, nil
}

// readManifest parses a pushed body. Its type is what the header says, which
// must be what the body says.
func readManifest(header string, d image.Digest, raw []byte) (*document, error) {
	invalid := func(err error) error {
		return &problem{http.StatusBadRequest, "MANIFEST_INVALID", err.Error()}
	}
	mt := mediaType(header)
	if mt == "" {
		var err error
		if mt, err = image.DetectMediaType(raw); err != nil {
			return nil, invalid(err)
		}
	}
	if !image.IsManifest(mt) && !image.IsIndex(mt) {
		return nil, &problem{http.StatusBadRequest, "MANIFEST_INVALID", fmt.Sprintf("manifests of type %q are not supported", mt)}
	}
	doc, err := parse(mt, d, raw)
	if err != nil {
		return nil, invalid(err)
	}
	return doc, nil
}

// complete checks that a repository has all that a manifest refers to; only
// what others distribute may be missing, and a subject.
func (g *registry) complete(repo string, doc *document, pin *store.Pin) error {
	for _, b := range doc.blobs {
		pin.Add(b.Digest)
		ok, err := g.hasBlob(repo, b.Digest)
		if err != nil {
			return err
		}
		if !ok {
			if doc.foreignOnly[b.Digest] {
				continue
			}
			return &problem{http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry: " + b.Digest.String()}
		}
		size, err := g.store.Known(b.Digest)
		if err != nil {
			return err
		}
		if size != b.Size {
			return &problem{http.StatusBadRequest, "MANIFEST_INVALID", fmt.Sprintf("blob %s has %d bytes, the manifest says %d", b.Digest, size, b.Size)}
		}
	}
	for _, m := range doc.manifests {
		pin.Add(m.Digest)
		ok, err := g.hasManifest(repo, m.Digest)
		if err != nil {
			return err
		}
		if !ok {
			return &problem{http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "manifest unknown to registry: " + m.Digest.String()}
		}
	}
	return nil
}

// enter makes a manifest known in its repository, under its tags if there are
// any, for a client that knows this registry as host.
func (g *registry) enter(host, repo string, tags []string, doc *document) error {
	g.change.Lock()
	defer g.change.Unlock()
	d := doc.desc.Digest
	if len(tags) == 0 {
		if err := g.store.AddLease(g.lease(repo, d), d); err != nil {
			return err
		}
		return g.store.Sync()
	}
	target := image.Descriptor{MediaType: doc.desc.MediaType, Digest: d, Size: doc.desc.Size}
	for _, tag := range tags {
		name, err := g.name(host, repo, tag)
		if err != nil {
			return err
		}
		old, err := g.store.Resolve(name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err == nil && old.Digest != d {
			// What the tag named stays available by its digest.
			if err := g.store.AddLease(g.lease(repo, old.Digest), old.Digest); err != nil {
				return err
			}
		}
		if err := g.store.SetName(name, target); err != nil {
			return err
		}
	}
	// The names hold it, and what is below it, from now on.
	for _, held := range append([]image.Descriptor{target}, doc.manifests...) {
		if err := g.store.RemoveLease(g.lease(repo, held.Digest)); err != nil {
			return err
		}
	}
	return nil
}

func (g *registry) deleteManifest(w http.ResponseWriter, repo, at string) error {
	if err := g.writable(); err != nil {
		return err
	}
	g.change.Lock()
	defer g.change.Unlock()
	d, err := image.ParseDigest(at)
	if err != nil {
		err = g.deleteTag(repo, at)
	} else {
		err = g.deleteDigest(repo, d)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// deleteTag removes a tag; its manifest stays available by digest.
func (g *registry) deleteTag(repo, tag string) error {
	if !image.ValidTag(tag) {
		return manifestUnknown()
	}
	list, err := g.entries(repo)
	if err != nil {
		return err
	}
	known := false
	for _, e := range list {
		if e.tag != tag || !g.owned(e.domain) {
			continue
		}
		known = true
		if err := g.store.AddLease(g.lease(repo, e.target), e.target); err != nil {
			return err
		}
		if err := g.store.RemoveName(e.name()); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	if !known {
		return manifestUnknown()
	}
	return nil
}

// deleteDigest removes a manifest and all tags that name it. What an index
// holds can't go before the index.
func (g *registry) deleteDigest(repo string, d image.Digest) error {
	list, err := g.entries(repo)
	if err != nil {
		return err
	}
	var doc *document
	for _, e := range list {
		if e.target != d || !g.owned(e.domain) {
			continue
		}
		if doc == nil {
			if doc, err = g.docs.get(g.store, d); err != nil {
				return err
			}
			// The images of a deleted index stay, as they would have if they
			// had not been part of one.
			for _, m := range doc.manifests {
				if err := g.store.AddLease(g.lease(repo, m.Digest), m.Digest); err != nil {
					return err
				}
			}
		}
		if e.tag == "" {
			err = g.store.RemoveLease(g.lease(repo, d))
		} else {
			err = g.store.RemoveName(e.name())
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	if doc != nil {
		return nil
	}
	ok, err := g.hasManifest(repo, d)
	if err != nil {
		return err
	}
	if ok {
		return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "the manifest is part of an index, or of an image pulled from elsewhere"}
	}
	return manifestUnknown()
}

func (g *registry) tags(w http.ResponseWriter, r *http.Request, repo string) error {
	list := g.tagList
	if g.opts.Upstream != nil {
		list = func(repo string) ([]string, bool, error) { return g.mirrorTags(r.Context(), repo) }
	}
	tags, known, err := list(repo)
	if err != nil {
		return err
	}
	if !known {
		return nameUnknown()
	}
	if tags, err = cut(w, r, tags); err != nil {
		return err
	}
	return reply(w, "application/json", map[string]any{"name": repo, "tags": orEmpty(tags)})
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (g *registry) catalog(w http.ResponseWriter, r *http.Request) error {
	list, err := g.entries("")
	if err != nil {
		return err
	}
	repos, err := cut(w, r, sortedRepos(list))
	if err != nil {
		return err
	}
	return reply(w, "application/json", map[string]any{"repositories": orEmpty(repos)})
}

func (g *registry) referrers(w http.ResponseWriter, r *http.Request, repo string, subject image.Digest) error {
	want := r.URL.Query().Get("artifactType")
	found := []image.Descriptor{}
	size := 0
	err := g.each(repo, func(doc *document) bool {
		if doc.subject != subject || (want != "" && doc.desc.ArtifactType != want) {
			return true
		}
		found = append(found, doc.desc)
		for k, v := range doc.desc.Annotations {
			size += len(k) + len(v)
		}
		// A reader need not take an index larger than a manifest.
		size += 512
		return size < image.MaxManifestSize
	})
	if err != nil {
		return err
	}
	if want != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return reply(w, image.MediaTypeIndex, map[string]any{"schemaVersion": 2, "mediaType": image.MediaTypeIndex, "manifests": found})
}
