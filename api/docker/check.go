package docker

import "net/http"

// imageWhy tells what holds an image, a blob or a layer.
func (s *Server) imageWhy(w http.ResponseWriter, r *request) error {
	why, err := s.engine.Why(r.Context(), r.name())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, why)
}

// containerExplain tells why a container is as it is.
func (s *Server) containerExplain(w http.ResponseWriter, r *request) error {
	x, err := s.engine.Explain(r.Context(), r.name())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, x)
}

// systemCheck reads back what is stored; ?repair=1 also puts right what can be.
func (s *Server) systemCheck(w http.ResponseWriter, r *request) error {
	report, err := s.engine.Check(r.Context(), r.flag("repair"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}
