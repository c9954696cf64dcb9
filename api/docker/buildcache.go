package docker

import (
	"context"
	"net/http"

	"cale/build/keep"
	"cale/image"
)

// What the builder, a process beside this one, asks of the engine that it shares the image store with.

func (s *Server) buildHeld(w http.ResponseWriter, r *request) error {
	held, err := s.engine.Build().Held(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, held)
}

func (s *Server) buildHold(w http.ResponseWriter, r *request) error {
	return s.buildContent(w, r, s.engine.Build().Hold)
}

func (s *Server) buildRelease(w http.ResponseWriter, r *request) error {
	return s.buildContent(w, r, s.engine.BuildRelease)
}

func (s *Server) buildAdded(w http.ResponseWriter, r *request) error {
	return s.buildContent(w, r, func(ctx context.Context, c keep.Content) error { return s.engine.Build().Added(ctx, c, r.flag("sync")) })
}

func (s *Server) buildContent(w http.ResponseWriter, r *request, do func(context.Context, keep.Content) error) error {
	var in keep.Content
	if err := r.decode(&in); err != nil {
		return err
	}
	if err := do(r.Context(), in); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// buildRestore brings a blob back that is not kept beside its unpacked layer.
func (s *Server) buildRestore(w http.ResponseWriter, r *request) error {
	var d image.Digest
	if err := r.decode(&d); err != nil {
		return err
	}
	if err := s.engine.BuildRestore(r.Context(), d); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// buildName makes an image that was built visible.
func (s *Server) buildName(w http.ResponseWriter, r *request) error {
	var in struct {
		Name   string
		Target image.Descriptor
	}
	if err := r.decode(&in); err != nil {
		return err
	}
	if err := s.engine.BuildName(in.Name, in.Target); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// buildJudge tells whether a build may use an image.
func (s *Server) buildJudge(w http.ResponseWriter, r *request) error {
	var in struct {
		Name   string
		Digest image.Digest
	}
	if err := r.decode(&in); err != nil {
		return err
	}
	if err := s.engine.BuildJudge(r.Context(), in.Name, in.Digest); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) buildNames(w http.ResponseWriter, r *request) error {
	names, err := s.engine.Build().Names(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, names)
}

// buildAttach lasts as long as the builder: an engine with a request does not end for want of work, and the builder
// learns at once when the engine is gone.
func (s *Server) buildAttach(w http.ResponseWriter, r *request) error {
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	<-r.Context().Done()
	s.engine.BuildGone()
	return nil
}
