package docker

import (
	"net/http"

	"github.com/moby/moby/api/types/checkpoint"

	"cale/engine"
)

func (s *Server) checkpointList(w http.ResponseWriter, r *request) error {
	names, err := s.engine.Checkpoints(r.name(), r.text("dir"))
	if err != nil {
		return err
	}
	out := make([]checkpoint.Summary, len(names))
	for i, n := range names {
		out[i].Name = n
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) checkpointCreate(w http.ResponseWriter, r *request) error {
	var in checkpoint.CreateRequest
	if err := r.decode(&in); err != nil {
		return err
	}
	o := engine.CheckpointOptions{Name: in.CheckpointID, Dir: in.CheckpointDir, Exit: in.Exit}
	err := s.engine.Checkpoint(r.detached(), r.name(), o)
	entryOf(r.Context()).Powers = hostDirectory(in.CheckpointDir)
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Server) checkpointRemove(w http.ResponseWriter, r *request) error {
	dir := r.text("dir")
	err := s.engine.RemoveCheckpoint(r.name(), r.vars["checkpoint"], dir)
	entryOf(r.Context()).Powers = hostDirectory(dir)
	return noContent(w, err)
}

// hostDirectory is the power to read and write where a client says.
func hostDirectory(dir string) []string {
	if dir == "" {
		return nil
	}
	return []string{"directory=" + dir}
}
