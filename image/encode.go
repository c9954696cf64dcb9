package image

import (
	"encoding/json"
	"fmt"
)

// Encode writes an OCI image manifest from its fields and sets Raw.
func (m *Manifest) Encode() ([]byte, error) {
	if m.MediaType == "" {
		m.MediaType = MediaTypeManifest
	}
	layers := m.Layers
	if layers == nil {
		layers = []Descriptor{}
	}
	raw, err := json.Marshal(struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType,omitempty"`
		Config        Descriptor        `json:"config"`
		Layers        []Descriptor      `json:"layers"`
		Subject       *Descriptor       `json:"subject,omitempty"`
		Annotations   map[string]string `json:"annotations,omitempty"`
	}{2, m.MediaType, m.ArtifactType, m.Config, layers, m.Subject, m.Annotations})
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	m.Raw = raw
	return raw, nil
}

// Encode writes an index from its fields and sets Raw.
func (x *Index) Encode() ([]byte, error) {
	if x.MediaType == "" {
		x.MediaType = MediaTypeIndex
	}
	manifests := x.Manifests
	if manifests == nil {
		manifests = []Descriptor{}
	}
	raw, err := json.Marshal(struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType,omitempty"`
		Manifests     []Descriptor      `json:"manifests"`
		Subject       *Descriptor       `json:"subject,omitempty"`
		Annotations   map[string]string `json:"annotations,omitempty"`
	}{2, x.MediaType, x.ArtifactType, manifests, x.Subject, x.Annotations})
	if err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	x.Raw = raw
	return raw, nil
}
