package docker

import (
	"net/http"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"cale/engine"
)

// Working containers are Cale's: what images are made of by hand (cale builder from).

// workingConfig tells of the configuration that a container's image is to have.
func (s *Server) workingConfig(w http.ResponseWriter, r *request) error {
	cfg, err := s.engine.WorkingConfig(r.name())
	if err != nil {
		return err
	}
	out := container.Config{User: cfg.User, Env: cfg.Env, Entrypoint: cfg.Entrypoint, Cmd: cfg.Cmd, WorkingDir: cfg.WorkingDir,
		Labels: cfg.Labels, StopSignal: cfg.StopSignal, Shell: cfg.Shell, OnBuild: cfg.OnBuild,
		Volumes: map[string]struct{}{}, ExposedPorts: network.PortSet{}}
	for _, v := range cfg.Volumes {
		out.Volumes[v] = struct{}{}
	}
	for _, p := range cfg.ExposedPorts {
		if port, err := network.ParsePort(p); err == nil {
			out.ExposedPorts[port] = struct{}{}
		}
	}
	if h := cfg.Healthcheck; h != nil {
		out.Healthcheck = &container.HealthConfig{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod,
			StartInterval: h.StartInterval, Retries: h.Retries}
	}
	return writeJSON(w, http.StatusOK, out)
}

// setWorkingConfig sets it.
func (s *Server) setWorkingConfig(w http.ResponseWriter, r *request) error {
	var in container.Config
	if err := r.decode(&in); err != nil {
		return err
	}
	if err := s.engine.SetWorkingConfig(r.Context(), r.name(), *imageConfig(&in)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// setProcess says what a working container runs when it is started next.
func (s *Server) setProcess(w http.ResponseWriter, r *request) error {
	var in engine.Process
	if err := r.decode(&in); err != nil {
		return err
	}
	if err := s.engine.SetProcess(r.Context(), r.name(), in); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
