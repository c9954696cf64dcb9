package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"cale/image"
	"cale/image/store"
	"cale/layer"
)

// Bounds on what an archive may hold beside its blobs.
const (
	maxFiles    = 100000
	maxDocument = 8 << 20 // index.json, manifest.json, in bytes
	maxArchive  = 1 << 40 // all of it, decompressed
)

// ErrFormat says that a tar file holds no images in a form known here.
var ErrFormat = errors.New("not an archive of images: it has neither index.json nor manifest.json")

// Loaded is one image that Load found. Name is zero if the archive gave none.
type Loaded struct {
	Name   image.Reference
	Target image.Descriptor
	ID     image.Digest // of the config; of the index if none of its platforms is here
}

// Load reads images from a tar stream, which may be compressed with gzip or
// zstd, into the store and calls found for each, in the archive's order, for
// it to set the names; until it has returned nothing is collected. Nothing is
// found before the whole archive has been read and verified.
func Load(ctx context.Context, r io.Reader, s *store.Store, found func(Loaded) error) error {
	pin := s.Pin("load of an archive")
	defer pin.Release()
	l := &loader{ctx: ctx, s: s, pin: pin, files: map[string]image.Descriptor{}, links: map[string]string{}, docs: map[string][]byte{}}
	if err := l.load(r, found); err != nil {
		return fmt.Errorf("load images: %w", err)
	}
	return nil
}

type loader struct {
	ctx   context.Context
	s     *store.Store
	pin   *store.Pin
	files map[string]image.Descriptor // by name in the archive
	links map[string]string           // docker once wrote equal layers as links
	docs  map[string][]byte
}

func (l *loader) load(r io.Reader, found func(Loaded) error) error {
	plain, err := layer.Decompress(&cancelled{l.ctx, r})
	if err != nil {
		return err
	}
	defer plain.Close()
	tr := tar.NewReader(layer.Bound(plain, maxArchive))
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if n == maxFiles {
			return fmt.Errorf("the archive holds more than %d files", maxFiles)
		}
		if err := l.entry(h, tr); err != nil {
			return fmt.Errorf("%.200q: %w", h.Name, err)
		}
	}
	images, err := l.images()
	if err != nil {
		return err
	}
	for _, img := range images {
		if err := found(img); err != nil {
			return err
		}
	}
	return nil
}

// clean is a name of the archive without dots and without slash in front.
// Names are keys of a map here, never paths.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (l *loader) entry(h *tar.Header, r io.Reader) error {
	name := clean(h.Name)
	switch h.Typeflag {
	case tar.TypeSymlink:
		l.links[name] = clean(path.Join(path.Dir(name), h.Linkname))
		return nil
	case tar.TypeLink:
		l.links[name] = clean(h.Linkname)
		return nil
	case tar.TypeReg:
	default:
		return nil
	}
	switch name {
	case "index.json", "manifest.json":
		if h.Size > maxDocument {
			return fmt.Errorf("%d bytes, more than %d", h.Size, maxDocument)
		}
		raw, err := io.ReadAll(r)
		l.docs[name] = raw
		return err
	case "oci-layout", "repositories":
		return nil
	}
	if rest, ok := strings.CutPrefix(name, "blobs/"); ok {
		if d, err := image.ParseDigest(strings.Replace(rest, "/", ":", 1)); err == nil {
			l.files[name] = image.Descriptor{Digest: d, Size: h.Size}
			return l.blob(l.files[name], r)
		}
	}
	// A name that says nothing of the content: the old form of docker save.
	u, err := l.s.NewUpload()
	if err != nil {
		return err
	}
	hash := image.Digest{}.Hash()
	if _, err := io.Copy(io.MultiWriter(u, hash), r); err != nil {
		u.Cancel()
		return err
	}
	d := image.FromHash(hash)
	l.pin.Add(d)
	if l.files[name], err = u.Commit(d); err != nil {
		u.Cancel()
		return err
	}
	return nil
}

// blob takes in a blob whose name says its digest.
func (l *loader) blob(desc image.Descriptor, r io.Reader) error {
	l.pin.Add(desc.Digest)
	w, err := l.s.Writer(l.ctx, desc)
	if errors.Is(err, store.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Restart(); err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	return w.Commit()
}

func (l *loader) images() ([]Loaded, error) {
	var out []Loaded
	var err error
	switch {
	case l.docs["index.json"] != nil:
		out, err = l.layout(l.docs["index.json"])
	case l.docs["manifest.json"] != nil:
		out, err = l.docker(l.docs["manifest.json"])
	default:
		err = ErrFormat
	}
	if err == nil && len(out) == 0 {
		err = errors.New("the archive holds no images")
	}
	return out, err
}

// layout reads an OCI layout's index.json.
func (l *loader) layout(raw []byte) ([]Loaded, error) {
	x, err := image.ParseIndex("", raw)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	tags := l.tags()
	var out []Loaded
	for _, m := range x.Manifests {
		name := nameOf(m.Annotations)
		img, err := l.s.Image(m, image.Platform{})
		if errors.Is(err, store.ErrNotImage) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", m.Digest, err)
		}
		if err := l.whole(img); err != nil {
			return nil, err
		}
		m.Annotations, m.Platform = nil, nil
		m.MediaType = mediaType(m, img)
		one := Loaded{Name: name, Target: m, ID: img.ID}
		if name.IsZero() && len(tags[img.ID]) > 0 {
			for _, one.Name = range tags[img.ID] {
				out = append(out, one)
			}
			continue
		}
		out = append(out, one)
	}
	return out, nil
}

func mediaType(m image.Descriptor, img *store.Image) string {
	if m.Digest == img.ManifestDescriptor.Digest {
		return img.Manifest.MediaType
	}
	return m.MediaType
}

// whole checks that what a manifest names is here, with the sizes it says.
func (l *loader) whole(img *store.Image) error {
	for _, d := range append([]image.Descriptor{img.Manifest.Config}, img.Manifest.Layers...) {
		size, err := l.s.Stat(d.Digest)
		if errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("image %s: the archive lacks %s", img.ID, d.Digest)
		}
		if err != nil {
			return err
		}
		if size != d.Size {
			return fmt.Errorf("image %s: %s has %d bytes, not %d", img.ID, d.Digest, size, d.Size)
		}
		l.pin.Add(d.Digest) // also if it was in the store before
	}
	return nil
}

// nameOf is the image's name by its annotations. A bare tag names nothing.
func nameOf(notes map[string]string) image.Reference {
	for _, key := range []string{annotationName, annotationRef} {
		v := notes[key]
		if key == annotationRef && !strings.ContainsAny(v, ":/") {
			continue
		}
		if r, err := image.ParseReference(v); err == nil {
			return r
		}
	}
	return image.Reference{}
}

// tags is what a manifest.json beside an index.json says, by config.
func (l *loader) tags() map[image.Digest][]image.Reference {
	var entries []dockerEntry
	out := map[image.Digest][]image.Reference{}
	if json.Unmarshal(l.docs["manifest.json"], &entries) != nil {
		return out
	}
	for _, e := range entries {
		desc, err := l.file(e.Config)
		if err != nil {
			continue
		}
		for _, t := range e.RepoTags {
			if r, err := image.ParseReference(t); err == nil {
				out[desc.Digest] = append(out[desc.Digest], r)
			}
		}
	}
	return out
}

// file is what the archive holds under a name, through its links.
func (l *loader) file(name string) (image.Descriptor, error) {
	at := clean(name)
	for range 10 {
		if d, ok := l.files[at]; ok {
			return d, nil
		}
		next, ok := l.links[at]
		if !ok {
			break
		}
		at = next
	}
	return image.Descriptor{}, fmt.Errorf("the archive lacks %.200q", name)
}

// docker makes manifests for the images of docker's manifest.json.
func (l *loader) docker(raw []byte) ([]Loaded, error) {
	var entries []dockerEntry
	if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	var out []Loaded
	for _, e := range entries {
		target, id, err := l.manifest(e)
		if err != nil {
			return nil, fmt.Errorf("manifest.json: image %.100q: %w", e.Config, err)
		}
		if len(e.RepoTags) == 0 {
			out = append(out, Loaded{Target: target, ID: id})
		}
		for _, t := range e.RepoTags {
			r, err := image.ParseReference(t)
			if err != nil {
				return nil, fmt.Errorf("manifest.json: %w", err)
			}
			out = append(out, Loaded{r, target, id})
		}
	}
	return out, nil
}

func (l *loader) manifest(e dockerEntry) (target image.Descriptor, id image.Digest, err error) {
	config, err := l.file(e.Config)
	if err != nil {
		return target, id, err
	}
	raw, err := l.s.Read(config.Digest, image.MaxConfigSize)
	if err != nil {
		return target, id, err
	}
	c, err := image.ParseConfig(raw)
	if err != nil {
		return target, id, err
	}
	if len(c.DiffIDs) != len(e.Layers) {
		return target, id, fmt.Errorf("%d layers, but %d diffIDs in its config", len(e.Layers), len(c.DiffIDs))
	}
	config.MediaType = image.MediaTypeConfig
	m := &image.Manifest{Config: config}
	for _, name := range e.Layers {
		d, err := l.file(name)
		if err != nil {
			return target, id, err
		}
		if d.MediaType, err = l.layerType(d.Digest); err != nil {
			return target, id, err
		}
		m.Layers = append(m.Layers, d)
	}
	if raw, err = m.Encode(); err != nil {
		return target, id, err
	}
	l.pin.Add(image.FromBytes(raw))
	target, err = l.s.Put(image.MediaTypeManifest, raw)
	return target, config.Digest, err
}

// layerType tells by its first bytes how a layer is compressed.
func (l *loader) layerType(d image.Digest) (string, error) {
	b, err := l.s.Open(d)
	if err != nil {
		return "", err
	}
	defer b.Close()
	var head [4]byte
	if _, err := b.ReadAt(head[:], 0); err != nil && err != io.EOF {
		return "", err
	}
	switch {
	case bytes.HasPrefix(head[:], []byte{0x1f, 0x8b}):
		return image.MediaTypeLayerGzip, nil
	case bytes.Equal(head[:], []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return image.MediaTypeLayerZstd, nil
	}
	return image.MediaTypeLayer, nil
}
