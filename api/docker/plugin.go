package docker

import (
	"encoding/json"
	"net/http"

	"github.com/moby/moby/api/types/plugin"

	"cale/engine"
)

// Docker's managed plug-ins are not built: none is ever installed, which is what all calls but those that install say.

func (s *Server) pluginList(w http.ResponseWriter, r *request) error {
	return writeJSON(w, http.StatusOK, []any{})
}

func (s *Server) noPlugin(w http.ResponseWriter, r *request) error {
	return &engine.Error{Class: engine.ErrNotFound, Text: `plugin "` + r.name() + `" not found`}
}

func (s *Server) pluginSet(w http.ResponseWriter, r *request) error {
	var args []json.RawMessage
	if err := r.decode(&args); err != nil {
		return err
	}
	return s.noPlugin(w, r)
}

func (s *Server) pluginPull(w http.ResponseWriter, r *request) error {
	var privileges plugin.Privileges
	if err := r.decode(&privileges); err != nil {
		return err
	}
	if r.text("remote") == "" {
		return invalid("invalid reference format")
	}
	return notBuilt{"the installation of Docker's managed plug-ins"}
}
