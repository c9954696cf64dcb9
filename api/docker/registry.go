package docker

import "net/http"

// The registry's calls are Cale's own: Docker has no such thing. The answer's Address is where it really listens, as
// port 0 lets the kernel choose.

func (s *Server) registryListen(w http.ResponseWriter, r *request) error {
	if s.opts.Registry == nil {
		return notBuilt{"a registry in this daemon"}
	}
	var in RegistrySettings
	if err := r.decode(&in); err != nil {
		return err
	}
	addr, err := s.opts.Registry.Listen(in)
	e := entryOf(r.Context())
	e.Object, e.Made = in.Address, addr
	if err != nil {
		return invalid("registry: %v", err)
	}
	return writeJSON(w, http.StatusOK, map[string]string{"Address": addr})
}

func (s *Server) registryStop(w http.ResponseWriter, r *request) error {
	if s.opts.Registry == nil {
		return notBuilt{"a registry in this daemon"}
	}
	if err := s.opts.Registry.Stop(r.text("address")); err != nil {
		return invalid("registry: %v", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) registryList(w http.ResponseWriter, r *request) error {
	out := []RegistrySettings{}
	if s.opts.Registry != nil {
		out = append(out, s.opts.Registry.List()...)
	}
	return writeJSON(w, http.StatusOK, out)
}
