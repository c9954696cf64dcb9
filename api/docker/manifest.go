package docker

import (
	"encoding/json"
	"net/http"

	"cale/image"
)

// Manifests are the client's business in Docker; here the engine keeps them, as images of several platforms.

// manifestInspect gives the document that a name stands for.
func (s *Server) manifestInspect(w http.ResponseWriter, r *request) error {
	creds, err := credentials(r)
	if err != nil {
		return err
	}
	mt, raw, err := s.engine.Manifest(r.Context(), r.name(), creds)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		MediaType string
		Manifest  json.RawMessage
	}{mt, raw})
}

// manifestCreate makes a manifest list of images, or adds to one.
func (s *Server) manifestCreate(w http.ResponseWriter, r *request) error {
	var in struct {
		Manifests []string
		Amend     bool
	}
	if err := r.decode(&in); err != nil {
		return err
	}
	digest, err := s.engine.MakeIndex(r.name(), in.Manifests, in.Amend)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"Digest": digest})
}

// manifestAnnotate changes the platform of an image in a manifest list.
func (s *Server) manifestAnnotate(w http.ResponseWriter, r *request) error {
	var in struct {
		Manifest string
		Platform image.Platform
	}
	if err := r.decode(&in); err != nil {
		return err
	}
	digest, err := s.engine.AnnotateIndex(r.name(), in.Manifest, in.Platform)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"Digest": digest})
}
