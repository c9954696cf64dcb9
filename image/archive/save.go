// Package archive moves images between the store and tar files. What Save
// writes is an OCI image layout that also holds docker's manifest.json, so
// docker, podman, containerd and skopeo all read it; Load reads those, the
// older form of docker save, and plain OCI layouts.
package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"cale/image"
	"cale/image/store"
)

// Annotations that carry names in an index.json.
const (
	annotationName = "io.containerd.image.name"          // the full name
	annotationRef  = "org.opencontainers.image.ref.name" // its tag, or whatever the writer took for a name
)

// Item is one image to save. Names are full names; there may be none.
type Item struct {
	Target image.Descriptor
	Names  []image.Reference
}

// Save writes images as one tar stream: of each the platforms that the store
// has whole. Equal content is written once, and the same images give the same
// bytes. The caller keeps the images from being collected meanwhile.
func Save(ctx context.Context, w io.Writer, s *store.Store, items []Item) error {
	a := &saver{ctx: ctx, s: s, tw: tar.NewWriter(w), done: map[image.Digest]bool{}}
	if err := a.save(items); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

type saver struct {
	ctx  context.Context
	s    *store.Store
	tw   *tar.Writer
	done map[image.Digest]bool
}

// dockerEntry is one image in docker's manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (a *saver) save(items []Item) error {
	// What is missing is told before the first byte: the reader of a stream
	// that breaks off learns nothing.
	index := &image.Index{MediaType: image.MediaTypeIndex}
	docker := []dockerEntry{}
	var targets []image.Descriptor
	for _, item := range items {
		target, err := a.portable(item.Target)
		if err != nil {
			return err
		}
		targets = append(targets, target)
		index.Manifests = append(index.Manifests, named(target, item.Names)...)
		entry, err := a.docker(item)
		if err != nil {
			return err
		}
		docker = append(docker, entry)
	}
	if err := a.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	for _, target := range targets {
		if err := a.tree(target); err != nil {
			return err
		}
	}
	raw, err := index.Encode()
	if err != nil {
		return err
	}
	if err := a.file("index.json", raw); err != nil {
		return err
	}
	if raw, err = json.Marshal(docker); err != nil {
		return err
	}
	if err := a.file("manifest.json", raw); err != nil {
		return err
	}
	return a.tw.Close()
}

// portable is what others are told the image is: an index only if they will
// find in it what they look for.
func (a *saver) portable(target image.Descriptor) (image.Descriptor, error) {
	have, err := a.s.Manifests(target)
	if err != nil {
		return target, err
	}
	var whole []image.Descriptor
	for _, m := range have {
		if miss, err := a.missing(m); err != nil {
			return target, err
		} else if len(miss) == 0 {
			whole = append(whole, m)
		} else if m.Digest == target.Digest {
			return target, fmt.Errorf("image %s is not here whole: it lacks %s", target.Digest, miss[0].Digest)
		}
	}
	switch {
	case len(whole) == 0:
		return target, fmt.Errorf("image %s: none of its platforms is here whole: %w", target.Digest, store.ErrNotFound)
	case len(whole) == 1:
		// The platform is said by the config; some readers mind it here.
		d := whole[0]
		d.Platform = nil
		return d, nil
	}
	return target, nil
}

// missing lists what a manifest lacks.
func (a *saver) missing(desc image.Descriptor) ([]image.Descriptor, error) {
	return a.s.Missing(desc, image.Platform{})
}

// tree writes a manifest or index and what of it is here, children first.
func (a *saver) tree(desc image.Descriptor) error {
	if a.done[desc.Digest] {
		return nil
	}
	raw, err := a.s.Read(desc.Digest, image.MaxManifestSize)
	if err != nil {
		return err
	}
	mt := desc.MediaType
	if !image.IsIndex(mt) && !image.IsManifest(mt) {
		if mt, err = image.DetectMediaType(raw); err != nil {
			return err
		}
	}
	if image.IsIndex(mt) {
		x, err := image.ParseIndex(mt, raw)
		if err != nil {
			return err
		}
		for _, m := range x.Manifests {
			if _, err := a.s.Stat(m.Digest); errors.Is(err, store.ErrNotFound) {
				continue
			}
			if miss, err := a.missing(m); err != nil || len(miss) > 0 {
				continue // a platform that is here in part is of no use elsewhere
			}
			if err := a.tree(m); err != nil {
				return err
			}
		}
		return a.blob(desc.Digest)
	}
	m, err := image.ParseManifest(mt, raw)
	if err != nil {
		return err
	}
	for _, d := range append([]image.Descriptor{m.Config}, m.Layers...) {
		if err := a.blob(d.Digest); err != nil {
			return err
		}
	}
	return a.blob(desc.Digest)
}

func blobName(d image.Digest) string { return "blobs/" + d.Algorithm() + "/" + d.Encoded() }

// blob writes one blob, once.
func (a *saver) blob(d image.Digest) error {
	if a.done[d] {
		return nil
	}
	if err := a.ctx.Err(); err != nil {
		return err
	}
	a.done[d] = true
	b, err := a.s.Open(d)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := a.header(blobName(d), b.Size()); err != nil {
		return err
	}
	h := d.Hash()
	if _, err := io.Copy(a.tw, io.TeeReader(&cancelled{a.ctx, b}, h)); err != nil {
		return err
	}
	if have := image.FromHash(h); have != d {
		return fmt.Errorf("blob %s is damaged: its content is %s", d, have)
	}
	return nil
}

func (a *saver) file(name string, data []byte) error {
	if err := a.header(name, int64(len(data))); err != nil {
		return err
	}
	_, err := a.tw.Write(data)
	return err
}

func (a *saver) header(name string, size int64) error {
	return a.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

// named is the descriptor once for each name.
func named(d image.Descriptor, names []image.Reference) []image.Descriptor {
	d = image.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}
	if len(names) == 0 {
		return []image.Descriptor{d}
	}
	var out []image.Descriptor
	for _, n := range names {
		d.Annotations = map[string]string{annotationName: n.String()}
		if n.Tag != "" {
			d.Annotations[annotationRef] = n.Tag
		}
		out = append(out, d)
	}
	return out
}

// docker describes the image as manifest.json does, which knows no platforms.
func (a *saver) docker(item Item) (dockerEntry, error) {
	img, err := a.s.Image(item.Target, image.Platform{})
	if err != nil {
		return dockerEntry{}, err
	}
	e := dockerEntry{Config: blobName(img.ID), RepoTags: []string{}, Layers: []string{}}
	for _, n := range item.Names {
		if n.Tag != "" {
			e.RepoTags = append(e.RepoTags, n.FamiliarName()+":"+n.Tag)
		}
	}
	for _, l := range img.Manifest.Layers {
		e.Layers = append(e.Layers, blobName(l.Digest))
	}
	return e, nil
}

// cancelled is a reader that ends with its context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
