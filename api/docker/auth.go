package docker

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/registry"

	"cale/engine"
	"cale/image"
)

// auth tries credentials at their registry.
func (s *Server) auth(w http.ResponseWriter, r *request) error {
	var a registry.AuthConfig
	if err := r.decode(&a); err != nil {
		return err
	}
	if err := s.engine.Login(r.Context(), engine.RegistryHost(a.ServerAddress), engineCredentials(&a)); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, registry.AuthResponse{Status: "Login Succeeded"})
}

func engineCredentials(a *registry.AuthConfig) engine.Credentials {
	return engine.Credentials{User: a.Username, Password: a.Password, Token: a.IdentityToken, Bearer: a.RegistryToken}
}

// credentials reads the X-Registry-Auth header: base64url of a JSON object, which may be empty.
func credentials(r *request) (*engine.Credentials, error) {
	h := r.Header.Get("X-Registry-Auth")
	if h == "" {
		return nil, nil
	}
	raw, err := base64.URLEncoding.DecodeString(h)
	if err != nil {
		if raw, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(h, "=")); err != nil {
			return nil, invalid("invalid X-Registry-Auth header: %v", err)
		}
	}
	var a registry.AuthConfig
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, invalid("invalid X-Registry-Auth header: %v", err)
	}
	if c := engineCredentials(&a); c != (engine.Credentials{}) {
		return &c, nil
	}
	return nil, nil
}

// distribution tells what a registry has under a name.
func (s *Server) distribution(w http.ResponseWriter, r *request) error {
	c, err := credentials(r)
	if err != nil {
		return err
	}
	d, err := s.engine.Distribution(r.Context(), r.name(), c)
	if err != nil {
		return err
	}
	if d.Platforms == nil {
		d.Platforms = []image.Platform{}
	}
	// The fields are those of Docker's DistributionInspect.
	return writeJSON(w, http.StatusOK, d)
}
