package image

import "fmt"

// Media types of the OCI image specification and of Docker's schema 2.
const (
	MediaTypeIndex           = "application/vnd.oci.image.index.v1+json"
	MediaTypeManifest        = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeConfig          = "application/vnd.oci.image.config.v1+json"
	MediaTypeEmpty           = "application/vnd.oci.empty.v1+json"
	MediaTypeLayer           = "application/vnd.oci.image.layer.v1.tar"
	MediaTypeLayerGzip       = "application/vnd.oci.image.layer.v1.tar+gzip"
	MediaTypeLayerZstd       = "application/vnd.oci.image.layer.v1.tar+zstd"
	MediaTypeForeignLayer    = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	MediaTypeForeignGzip     = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
	MediaTypeForeignZstd     = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
	MediaTypeDockerIndex     = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerConfig    = "application/vnd.docker.container.image.v1+json"
	MediaTypeDockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	MediaTypeDockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	MediaTypeDockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	MediaTypeDockerForeign   = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	// MediaTypeDockerSchema1 and its signed form are refused everywhere; they
	// are named so that the refusal can be clear.
	MediaTypeDockerSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeDockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// Bounds on documents that come from outside, in bytes.
const (
	MaxManifestSize = 4 << 20 // the least a registry must accept, distribution-spec 1.1
	MaxConfigSize   = 8 << 20
)

// Descriptor points at content: type, digest and size in bytes.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       Digest            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Data         []byte            `json:"data,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// check refuses a descriptor that names nothing or has an impossible size.
func (d *Descriptor) check(what string) error {
	if d.Digest.IsZero() {
		return fmt.Errorf("%s has no digest", what)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s %s has a negative size", what, d.Digest)
	}
	return nil
}

// IsIndex tells an OCI index or a Docker manifest list.
func IsIndex(mt string) bool { return mt == MediaTypeIndex || mt == MediaTypeDockerIndex }

// IsManifest tells an image manifest, OCI or Docker schema 2.
func IsManifest(mt string) bool { return mt == MediaTypeManifest || mt == MediaTypeDockerManifest }

// IsConfig tells an image configuration.
func IsConfig(mt string) bool { return mt == MediaTypeConfig || mt == MediaTypeDockerConfig }

// IsLayer tells a filesystem layer, including those that may not be distributed.
func IsLayer(mt string) bool {
	switch mt {
	case MediaTypeLayer, MediaTypeLayerGzip, MediaTypeLayerZstd,
		MediaTypeDockerLayer, MediaTypeDockerLayerGzip, MediaTypeDockerLayerZstd:
		return true
	}
	return IsForeign(mt)
}

// IsForeign tells a layer that registries do not hold by themselves.
func IsForeign(mt string) bool {
	switch mt {
	case MediaTypeForeignLayer, MediaTypeForeignGzip, MediaTypeForeignZstd, MediaTypeDockerForeign:
		return true
	}
	return false
}
