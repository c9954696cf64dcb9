// Package images makes small images for tests, and pushes them to a registry
// or writes them as an OCI layout. It shares no code with what it helps to
// test: its tar, JSON and HTTP are its own.
package images

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
)

// The media types used.
const (
	TypeManifest = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex    = "application/vnd.oci.image.index.v1+json"
	TypeConfig   = "application/vnd.oci.image.config.v1+json"
	TypeGzip     = "application/vnd.oci.image.layer.v1.tar+gzip"
	TypeZstd     = "application/vnd.oci.image.layer.v1.tar+zstd"
	TypeTar      = "application/vnd.oci.image.layer.v1.tar"
)

// Blob is one piece of content with its media type.
type Blob struct {
	MediaType string
	Data      []byte
}

// Digest is the blob's "sha256:…".
func (b Blob) Digest() string {
	s := sha256.Sum256(b.Data)
	return "sha256:" + hex.EncodeToString(s[:])
}

// Platform of an image, as in an index.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// Descriptor names a blob from a manifest or index.
type Descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"`
	Platform  *Platform `json:"platform,omitempty"`
}

// Descriptor of the blob.
func (b Blob) Descriptor() Descriptor {
	return Descriptor{MediaType: b.MediaType, Digest: b.Digest(), Size: int64(len(b.Data))}
}

// Image is a whole image in memory.
type Image struct {
	Platform Platform
	Manifest Blob
	Config   Blob
	Layers   []Blob
}

// Run is what an image's configuration says about its process; the JSON names
// are those of the image specification.
type Run struct {
	User         string              `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Healthcheck  *Health             `json:",omitempty"`
}

// Health is Docker's healthcheck; durations in nanoseconds.
type Health struct {
	Test     []string `json:",omitempty"`
	Interval int64    `json:",omitempty"`
	Timeout  int64    `json:",omitempty"`
	Retries  int      `json:",omitempty"`
}

// Spec says what an image is made of. A zero platform is linux on the
// architecture the program runs on; an empty Compression means gzip ("gzip",
// "zstd", "none").
type Spec struct {
	Platform    Platform
	Layers      [][]File
	Run         Run
	Compression string
}

// New makes the image of a specification. The same specification always
// gives the same digests.
func New(s Spec) (*Image, error) {
	if s.Platform.OS == "" {
		s.Platform = Platform{OS: "linux", Architecture: runtime.GOARCH}
	}
	img := &Image{Platform: s.Platform}
	type history struct {
		Created   string `json:"created"`
		CreatedBy string `json:"created_by"`
	}
	type rootfs struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	cfg := struct {
		Created      string    `json:"created"`
		Architecture string    `json:"architecture"`
		OS           string    `json:"os"`
		Variant      string    `json:"variant,omitempty"`
		Config       Run       `json:"config"`
		RootFS       rootfs    `json:"rootfs"`
		History      []history `json:"history"`
	}{
		Created: created.Format("2006-01-02T15:04:05Z"), Architecture: s.Platform.Architecture,
		OS: s.Platform.OS, Variant: s.Platform.Variant, Config: s.Run,
		RootFS: rootfs{Type: "layers", DiffIDs: []string{}},
	}
	man := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        Descriptor   `json:"config"`
		Layers        []Descriptor `json:"layers"`
	}{SchemaVersion: 2, MediaType: TypeManifest, Layers: []Descriptor{}}

	for i, files := range s.Layers {
		tar, err := Tar(files)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		layer, err := compress(s.Compression, tar)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, Blob{Data: tar}.Digest())
		cfg.History = append(cfg.History, history{Created: cfg.Created, CreatedBy: fmt.Sprintf("test layer %d", i)})
		img.Layers = append(img.Layers, layer)
		man.Layers = append(man.Layers, layer.Descriptor())
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	img.Config = Blob{TypeConfig, raw}
	man.Config = img.Config.Descriptor()
	if raw, err = json.Marshal(man); err != nil {
		return nil, err
	}
	img.Manifest = Blob{TypeManifest, raw}
	return img, nil
}

// Index makes an index of images, in the order given.
func Index(imgs ...*Image) (Blob, error) {
	ix := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []Descriptor `json:"manifests"`
	}{SchemaVersion: 2, MediaType: TypeIndex, Manifests: []Descriptor{}}
	for _, i := range imgs {
		d := i.Manifest.Descriptor()
		p := i.Platform
		d.Platform = &p
		ix.Manifests = append(ix.Manifests, d)
	}
	raw, err := json.Marshal(ix)
	return Blob{TypeIndex, raw}, err
}
