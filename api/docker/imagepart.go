package docker

import (
	"encoding/json"
	"net/http"

	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"cale/engine"
	ours "cale/image"
)

// imageManifests are the manifests of an image, as listings and inspections show them.
func (s *Server) imageManifests(r *request, ref string) ([]image.ManifestSummary, error) {
	parts, err := s.engine.ImageParts(r.Context(), ref)
	if err != nil {
		return nil, err
	}
	out := make([]image.ManifestSummary, 0, len(parts))
	for _, p := range parts {
		m := image.ManifestSummary{ID: p.Digest.String(), Descriptor: descriptor(&p.Descriptor), Available: p.Available, Kind: image.ManifestKindUnknown}
		m.Size.Content, m.Size.Total = p.Content, p.Content+p.Unpacked
		switch {
		case p.For != "":
			m.Kind = image.ManifestKindAttestation
			m.AttestationData = &image.AttestationProperties{For: digest.Digest(p.For)}
		case p.Image:
			m.Kind = image.ManifestKindImage
			m.ImageData = &image.ImageProperties{Containers: orNone(p.Containers)}
			if p.Platform != nil {
				m.ImageData.Platform = platformOf(p.Platform)
			}
			m.ImageData.Size.Unpacked = p.Unpacked
		}
		out = append(out, m)
	}
	return out, nil
}

// imageAttestations lists what is stated about an image beside it.
func (s *Server) imageAttestations(w http.ResponseWriter, r *request) error {
	q := r.URL.Query()
	if len(q["platform"]) > 1 {
		return invalid("only one platform value is currently supported")
	}
	platform, err := r.platform()
	if err != nil {
		return err
	}
	all, err := s.engine.Attestations(r.Context(), r.name(), platform, q["type"], r.flag("statement"))
	if err != nil {
		return err
	}
	out := []image.AttestationStatement{}
	for _, a := range all {
		st := image.AttestationStatement{Descriptor: descriptor(&a.Descriptor), PredicateType: a.Predicate}
		if a.Statement != nil {
			if !json.Valid(a.Statement) {
				return &engine.Error{Class: engine.ErrInvalid, Text: "statement " + a.Digest.String() + " is no JSON"}
			}
			st.Statement = (*json.RawMessage)(&a.Statement)
		}
		out = append(out, st)
	}
	return writeJSON(w, http.StatusOK, out)
}

// imagePartRemove removes images of single platforms from among those that a name stands for.
func (s *Server) imagePartRemove(w http.ResponseWriter, r *request) error {
	var platforms []string
	for _, text := range r.URL.Query()["platforms"] {
		p, err := platformText(text)
		if err != nil {
			return err
		}
		platforms = append(platforms, p)
	}
	steps, err := s.engine.RemoveImageParts(r.detached(), r.name(), platforms, r.flag("force"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, removed(steps))
}

func platformOf(p *ours.Platform) ocispec.Platform {
	return ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}
}

func descriptor(d *ours.Descriptor) ocispec.Descriptor {
	out := ocispec.Descriptor{MediaType: d.MediaType, Digest: digest.Digest(d.Digest.String()), Size: d.Size, URLs: d.URLs, Annotations: d.Annotations,
		Data: d.Data, ArtifactType: d.ArtifactType}
	if d.Platform != nil {
		p := platformOf(d.Platform)
		out.Platform = &p
	}
	return out
}
