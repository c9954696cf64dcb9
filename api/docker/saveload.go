package docker

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (s *Server) imageSave(w http.ResponseWriter, r *request) error {
	refs := r.URL.Query()["names"]
	if n := r.name(); n != "" {
		refs = []string{n}
	}
	if len(refs) == 0 {
		return invalid("no image is named")
	}
	platform, err := r.platform()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	out := &started{w: w}
	if err := s.engine.SaveImages(r.Context(), refs, platform, out); err != nil {
		return out.fail(err)
	}
	return nil
}

func (s *Server) imageLoad(w http.ResponseWriter, r *request) error {
	platform, err := r.platform()
	if err != nil {
		return err
	}
	p := &progress{w: w, entry: entryOf(r.Context())}
	err = s.engine.LoadImages(r.Context(), r.Body, platform, func(name string) {
		kind := "Loaded image: "
		if strings.HasPrefix(name, "sha256:") {
			kind = "Loaded image ID: "
		}
		p.message(jsonstream.Message{Stream: kind + name + "\n"})
	})
	return p.end(err)
}

// platform reads the parameter of that name: a platform as JSON, or in its short form as os/architecture/variant.
func (r *request) platform() (string, error) {
	if len(r.URL.Query()["platform"]) > 1 {
		return "", notBuilt{"the choice of several platforms at once"}
	}
	return platformText(r.text("platform"))
}

func platformText(text string) (string, error) {
	if !strings.HasPrefix(text, "{") {
		return text, nil
	}
	var p ocispec.Platform
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return "", invalid("invalid platform: %v", err)
	}
	if p.OS == "" || p.Architecture == "" {
		return "", invalid("invalid platform %s: it has no os or no architecture", text)
	}
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/"), nil
}
