package server

import (
	"errors"
	"sync"

	"cale/image"
	"cale/image/store"
)

// maxDocuments bounds the parsed manifests that are remembered.
const maxDocuments = 4096

// document is what the registry needs to know of a manifest or index. It is
// immutable, as its digest is.
type document struct {
	desc        image.Descriptor // with artifact type and annotations, as referrers are listed
	subject     image.Digest
	blobs       []image.Descriptor // config and layers
	manifests   []image.Descriptor // of an index
	foreignOnly map[image.Digest]bool
}

// documents remembers parsed manifests.
type documents struct {
	mu  sync.Mutex
	all map[image.Digest]*document
}

func (c *documents) get(s *store.Store, d image.Digest) (*document, error) {
	c.mu.Lock()
	doc := c.all[d]
	c.mu.Unlock()
	if doc != nil {
		if _, err := s.Stat(d); err != nil {
			return nil, err
		}
		return doc, nil
	}
	raw, err := s.Read(d, image.MaxManifestSize)
	if err != nil {
		return nil, err
	}
	mt, err := image.DetectMediaType(raw)
	if err != nil {
		return nil, err
	}
	if doc, err = parse(mt, d, raw); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil || len(c.all) >= maxDocuments {
		c.all = map[image.Digest]*document{}
	}
	c.all[d] = doc
	return doc, nil
}

// parse reads a manifest or index of the media type given.
func parse(mt string, d image.Digest, raw []byte) (*document, error) {
	doc := &document{desc: image.Descriptor{MediaType: mt, Digest: d, Size: int64(len(raw))}, foreignOnly: map[image.Digest]bool{}}
	var subject *image.Descriptor
	if image.IsIndex(mt) {
		x, err := image.ParseIndex(mt, raw)
		if err != nil {
			return nil, err
		}
		doc.manifests, subject = x.Manifests, x.Subject
		doc.desc.ArtifactType, doc.desc.Annotations = x.ArtifactType, x.Annotations
	} else {
		m, err := image.ParseManifest(mt, raw)
		if err != nil {
			return nil, err
		}
		doc.blobs = append([]image.Descriptor{m.Config}, m.Layers...)
		for _, l := range m.Layers {
			if image.IsForeign(l.MediaType) {
				doc.foreignOnly[l.Digest] = true
			}
		}
		subject = m.Subject
		doc.desc.ArtifactType, doc.desc.Annotations = m.ArtifactType, m.Annotations
		if doc.desc.ArtifactType == "" {
			doc.desc.ArtifactType = m.Config.MediaType
		}
	}
	if subject != nil {
		doc.subject = subject.Digest
	}
	return doc, nil
}

// walk visits a manifest and the manifests below it, each digest once; it
// leaves out what is not in the store. It stops when visit says so.
func (g *registry) walk(d image.Digest, seen map[image.Digest]bool, visit func(*document) bool) (bool, error) {
	if seen[d] {
		return true, nil
	}
	seen[d] = true
	doc, err := g.docs.get(g.store, d)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, image.ErrManifest) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if !visit(doc) {
		return false, nil
	}
	for _, m := range doc.manifests {
		if more, err := g.walk(m.Digest, seen, visit); !more || err != nil {
			return more, err
		}
	}
	return true, nil
}
