package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// ErrManifest is the class of manifests and indexes that cannot be accepted.
var ErrManifest = errors.New("invalid manifest")

// maxDescriptors bounds how many children one document may name.
const maxDescriptors = 10000

// Manifest is an image manifest, OCI or Docker schema 2.
type Manifest struct {
	Raw          []byte
	MediaType    string
	Config       Descriptor
	Layers       []Descriptor
	Subject      *Descriptor
	ArtifactType string
	Annotations  map[string]string
}

// Index is an OCI image index or a Docker manifest list.
type Index struct {
	Raw          []byte
	MediaType    string
	Manifests    []Descriptor
	Subject      *Descriptor
	ArtifactType string
	Annotations  map[string]string
}

// document holds the fields of both kinds, to tell one posing as the other.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *Descriptor       `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Manifests     []Descriptor      `json:"manifests"`
	Subject       *Descriptor       `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
	FSLayers      json.RawMessage   `json:"fsLayers"`
}

// ParseManifest reads an image manifest. mediaType is what the descriptor or
// the transport said; "" means nobody said. A body that names another type, or
// that could also be read as an index, is refused (CVE-2021-41190).
func ParseManifest(mediaType string, raw []byte) (*Manifest, error) {
	d, err := parseDocument(mediaType, raw)
	if err != nil {
		return nil, err
	}
	if d.MediaType == "" {
		d.MediaType = MediaTypeManifest
	}
	if !IsManifest(d.MediaType) {
		return nil, fmt.Errorf("%w: %q is not an image manifest", ErrManifest, clip(d.MediaType))
	}
	if d.Manifests != nil {
		return nil, fmt.Errorf("%w: an image manifest must not hold \"manifests\"", ErrManifest)
	}
	if d.Config == nil {
		return nil, fmt.Errorf("%w: it has no config", ErrManifest)
	}
	if err := d.Config.check("config"); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if err := checkAll("layer", d.Layers); err != nil {
		return nil, err
	}
	return &Manifest{Raw: raw, MediaType: d.MediaType, Config: *d.Config, Layers: d.Layers,
		Subject: d.Subject, ArtifactType: d.ArtifactType, Annotations: d.Annotations}, nil
}

// ParseIndex reads an index; mediaType as in ParseManifest.
func ParseIndex(mediaType string, raw []byte) (*Index, error) {
	d, err := parseDocument(mediaType, raw)
	if err != nil {
		return nil, err
	}
	if d.MediaType == "" {
		d.MediaType = MediaTypeIndex
	}
	if !IsIndex(d.MediaType) {
		return nil, fmt.Errorf("%w: %q is not an index", ErrManifest, clip(d.MediaType))
	}
	if d.Config != nil || d.Layers != nil {
		return nil, fmt.Errorf("%w: an index must not hold \"config\" or \"layers\"", ErrManifest)
	}
	if err := checkAll("manifest", d.Manifests); err != nil {
		return nil, err
	}
	return &Index{Raw: raw, MediaType: d.MediaType, Manifests: d.Manifests,
		Subject: d.Subject, ArtifactType: d.ArtifactType, Annotations: d.Annotations}, nil
}

// DetectMediaType is the media type that a manifest or index says of itself,
// or that its fields show when it says nothing.
func DetectMediaType(raw []byte) (string, error) {
	d, err := parseDocument("", raw)
	switch {
	case err != nil:
		return "", err
	case d.MediaType != "":
		return d.MediaType, nil
	case d.Manifests != nil && d.Config == nil && d.Layers == nil:
		return MediaTypeIndex, nil
	case d.Config != nil && d.Manifests == nil:
		return MediaTypeManifest, nil
	}
	return "", fmt.Errorf("%w: neither an image manifest nor an index", ErrManifest)
}

func parseDocument(mediaType string, raw []byte) (*document, error) {
	if len(raw) > MaxManifestSize {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrManifest, len(raw), MaxManifestSize)
	}
	// Parameters ("; charset=utf-8") come with transports and mean nothing here.
	mediaType, _, _ = strings.Cut(mediaType, ";")
	mediaType = strings.TrimSpace(mediaType)
	if err := uniqueKeys(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if d.SchemaVersion == 1 || d.FSLayers != nil || mediaType == MediaTypeDockerSchema1 || mediaType == MediaTypeDockerSchema1Signed {
		return nil, fmt.Errorf("%w: Docker schema 1 images are not supported, the image has to be pushed again by a current tool", ErrManifest)
	}
	if d.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: schema version %d, want 2", ErrManifest, d.SchemaVersion)
	}
	if mediaType != "" && d.MediaType != "" && mediaType != d.MediaType {
		return nil, fmt.Errorf("%w: it was offered as %q but says that it is %q", ErrManifest, clip(mediaType), clip(d.MediaType))
	}
	if d.MediaType == "" {
		// Docker's types are always written in the body.
		if mediaType == MediaTypeDockerManifest || mediaType == MediaTypeDockerIndex {
			return nil, fmt.Errorf("%w: it was offered as %q but does not say so itself", ErrManifest, mediaType)
		}
		d.MediaType = mediaType
	}
	if d.Subject != nil {
		if err := d.Subject.check("subject"); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrManifest, err)
		}
	}
	return &d, nil
}

func checkAll(what string, all []Descriptor) error {
	if len(all) > maxDescriptors {
		return fmt.Errorf("%w: %d %ss, more than %d", ErrManifest, len(all), what, maxDescriptors)
	}
	for i := range all {
		if err := all[i].check(what); err != nil {
			return fmt.Errorf("%w: %w", ErrManifest, err)
		}
	}
	return nil
}

// uniqueKeys refuses a document whose top level says one thing twice, also
// when the second time is spelled in another case: encoding/json takes the
// last of either, other readers the first, and the two would see two images.
func uniqueKeys(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		folded := strings.ToLower(key)
		if seen[folded] {
			return fmt.Errorf("key %q appears twice", clip(key))
		}
		seen[folded] = true
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return err
		}
	}
	return nil
}

// Choose picks the manifest that runs best on p, whatever the order of the
// entries; among equals the first. Entries that are no images (attestations,
// referring artifacts) are never chosen.
func (x *Index) Choose(p Platform) (Descriptor, error) {
	best, score := -1, 0
	bare, bares := -1, 0
	for i := range x.Manifests {
		m := &x.Manifests[i]
		if m.ArtifactType != "" || m.Annotations["vnd.docker.reference.type"] != "" {
			continue
		}
		if !IsManifest(m.MediaType) && !IsIndex(m.MediaType) {
			continue
		}
		if m.Platform == nil || m.Platform.OS == "" && m.Platform.Architecture == "" {
			bare, bares = i, bares+1
			continue
		}
		if s := p.Score(*m.Platform); s > score {
			best, score = i, s
		}
	}
	// Layouts of single images commonly leave the platform to the config.
	if best < 0 && bares == 1 {
		best = bare
	}
	if best < 0 {
		return Descriptor{}, fmt.Errorf("%w for %s in the manifest list entries (has %s)", ErrNoPlatform, p, x.platforms())
	}
	return x.Manifests[best], nil
}

// platforms lists what the index offers, for the error message.
func (x *Index) platforms() string {
	var names []string
	for _, m := range x.Manifests {
		if m.Platform == nil || m.Platform.OS == "unknown" {
			continue
		}
		if len(names) == 12 {
			names = append(names, "…")
			break
		}
		names = append(names, clip(m.Platform.String()))
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}
