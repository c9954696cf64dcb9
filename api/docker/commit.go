package docker

import (
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"

	"cale/engine"
	"cale/image"
)

// commit makes an image of a container.
func (s *Server) commit(w http.ResponseWriter, r *request) error {
	var over *container.Config
	if err := r.decode(&over); err != nil {
		return err
	}
	pause := r.flag("pause")
	if !r.URL.Query().Has("pause") {
		pause = true
	}
	id, err := s.engine.Commit(r.Context(), r.text("container"), engine.CommitOptions{
		Name: nameAndTag(r), Author: r.text("author"), Comment: r.text("comment"), Pause: pause,
		Config: imageConfig(over), Changes: r.URL.Query()["changes"],
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.CommitResponse{ID: id})
}

// nameAndTag is the name that a request gives a new image.
func nameAndTag(r *request) string {
	repo, tag := r.text("repo"), r.text("tag")
	if repo == "" || tag == "" {
		return repo
	}
	return repo + ":" + tag
}

// imageConfig is the part of a container's configuration that an image may have.
func imageConfig(c *container.Config) *image.RunConfig {
	if c == nil {
		return nil
	}
	out := &image.RunConfig{User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir,
		Labels: c.Labels, StopSignal: c.StopSignal, Shell: c.Shell, OnBuild: c.OnBuild}
	for v := range c.Volumes {
		out.Volumes = append(out.Volumes, v)
	}
	for p := range c.ExposedPorts {
		out.ExposedPorts = append(out.ExposedPorts, p.String())
	}
	slices.Sort(out.Volumes)
	slices.Sort(out.ExposedPorts)
	if h := c.Healthcheck; h != nil {
		out.Healthcheck = &image.Healthcheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout,
			StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries}
	}
	return out
}

// imageImport makes an image of a tar of files: the request's body, or what a URL gives.
func (s *Server) imageImport(w http.ResponseWriter, r *request) error {
	o := engine.ImportOptions{Name: nameAndTag(r), Message: r.text("message"), Platform: r.text("platform"), Changes: r.URL.Query()["changes"]}
	src := r.text("fromSrc")
	var id string
	var err error
	p := &progress{w: w, entry: entryOf(r.Context())}
	if src == "-" {
		id, err = s.engine.Import(r.Context(), r.Body, o)
	} else {
		o.Began = func() {
			p.message(jsonstream.Message{Status: "Downloading from " + strings.ReplaceAll(src, "\n", "")})
		}
		id, err = s.engine.ImportURL(r.Context(), src, o)
	}
	if err != nil {
		return p.end(err)
	}
	p.message(jsonstream.Message{Status: id})
	return nil
}
