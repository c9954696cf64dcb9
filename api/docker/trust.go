package docker

import (
	"encoding/json"
	"net/http"

	"cale/engine"
)

// imageVerify tells whether an image in its registry is signed as the policy, or a key in the request, wants it.
func (s *Server) imageVerify(w http.ResponseWriter, r *request) error {
	var in engine.VerifyOptions
	if err := r.decode(&in); err != nil {
		return err
	}
	creds, err := credentials(r)
	if err != nil {
		return err
	}
	v, err := s.engine.VerifyImage(r.Context(), r.name(), in, creds)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

// imageSign adds a signature to those of an image in its registry. It was made by the client: no private key comes
// here.
func (s *Server) imageSign(w http.ResponseWriter, r *request) error {
	var in struct {
		Digest             string
		Payload, Signature []byte
	}
	if err := r.decode(&in); err != nil {
		return err
	}
	creds, err := credentials(r)
	if err != nil {
		return err
	}
	if err := s.engine.SignImage(r.Context(), r.name(), in.Digest, in.Payload, in.Signature, creds); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

type trustPolicy struct {
	Path   string          // of the file; empty if the daemon has no directory of settings
	Policy json.RawMessage `json:",omitempty"` // nothing if there is no file
}

func (s *Server) trustShow(w http.ResponseWriter, r *request) error {
	path, raw, err := s.engine.TrustPolicy()
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, trustPolicy{path, raw})
}

// trustSet changes what is required in one scope; without requirements the scope goes.
func (s *Server) trustSet(w http.ResponseWriter, r *request) error {
	var in struct {
		Scope        string
		Requirements json.RawMessage
	}
	if err := r.decode(&in); err != nil {
		return err
	}
	err := s.engine.SetTrust(in.Scope, in.Requirements)
	e := entryOf(r.Context())
	e.Object, e.Powers = in.Scope, []string{"policy"}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
