package docker

import (
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"cale/engine"
)

func (s *Server) containerCreate(w http.ResponseWriter, r *request) error {
	var in createRequest
	if err := r.decode(&in); err == errNoJSON || err == nil && r.ContentLength == 0 {
		return invalid("invalid JSON: EOF")
	} else if err != nil {
		return err
	}
	if in.NetworkingConfig != nil && len(in.NetworkingConfig.EndpointsConfig) > 1 && r.before("1.44") {
		return invalid("Container cannot be created with multiple network endpoints: it needs API version 1.44")
	}
	if in.HostConfig != nil && in.HostConfig.IpcMode == "" && r.before("1.40") {
		in.HostConfig.IpcMode = "shareable" // what the default was
	}
	if h := in.HostConfig; h != nil && h.NetworkMode == "container" {
		return invalid("invalid container format container:<name|id>")
	}
	spec, err := toSpec(r.text("name"), r.text("platform"), &in)
	if err != nil {
		return err
	}
	if r.before("1.44") {
		forget44(spec.Mounts)
	}
	id, warnings, err := s.engine.Create(r.Context(), spec)
	e := entryOf(r.Context())
	e.Object, e.Made, e.Command, e.Powers = spec.Image, id, append(slices.Clone(spec.Entrypoint), spec.Cmd...), powers(&spec)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.CreateResponse{ID: id, Warnings: append(in.warnings(), warnings...)})
}

// noContent runs an engine's call that answers nothing but success.
func noContent(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (s *Server) containerStart(w http.ResponseWriter, r *request) error {
	o := engine.StartOptions{Checkpoint: r.text("checkpoint"), CheckpointDir: r.text("checkpoint-dir")}
	// A start that has begun is finished: half of one is nobody's wish.
	err := s.engine.Start(r.detached(), r.name(), o)
	entryOf(r.Context()).Powers = hostDirectory(o.CheckpointDir)
	return noContent(w, err)
}

func stopOptions(r *request) (engine.StopOptions, error) {
	o := engine.StopOptions{Signal: r.text("signal")}
	if t := r.text("t"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil {
			return o, invalid("invalid timeout %q: it must be a number of seconds", t)
		}
		o.Timeout = &n
	}
	return o, nil
}

func (s *Server) containerStop(w http.ResponseWriter, r *request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	return noContent(w, s.engine.Stop(r.detached(), r.name(), o))
}

func (s *Server) containerRestart(w http.ResponseWriter, r *request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	return noContent(w, s.engine.Restart(r.detached(), r.name(), o))
}

func (s *Server) containerKill(w http.ResponseWriter, r *request) error {
	return noContent(w, s.engine.Kill(r.detached(), r.name(), r.text("signal")))
}

func (s *Server) containerPause(w http.ResponseWriter, r *request) error {
	return noContent(w, s.engine.Pause(r.detached(), r.name()))
}

func (s *Server) containerUnpause(w http.ResponseWriter, r *request) error {
	return noContent(w, s.engine.Unpause(r.detached(), r.name()))
}

func (s *Server) containerRename(w http.ResponseWriter, r *request) error {
	return noContent(w, s.engine.Rename(r.detached(), r.name(), strings.TrimPrefix(r.text("name"), "/")))
}

func (s *Server) containerRemove(w http.ResponseWriter, r *request) error {
	if r.flag("link") {
		return noContent(w, s.engine.Unlink(r.name()))
	}
	return noContent(w, s.engine.Remove(r.detached(), r.name(), engine.RemoveOptions{Force: r.flag("force"), Volumes: r.flag("v")}))
}

func (s *Server) containerUpdate(w http.ResponseWriter, r *request) error {
	var in struct {
		container.UpdateConfig
		KernelMemory int64
	}
	if err := r.decode(&in); err != nil {
		return err
	}
	if r.before("1.40") {
		in.PidsLimit = nil
	}
	res, err := toResources(&in.Resources)
	if err != nil {
		return err
	}
	var restart *engine.Restart
	if in.RestartPolicy.Name != "" {
		restart = &engine.Restart{Name: string(in.RestartPolicy.Name), Retries: in.RestartPolicy.MaximumRetryCount}
	}
	warnings, err := s.engine.Update(r.detached(), r.name(), res, restart)
	if err != nil {
		return err
	}
	if warnings == nil {
		warnings = []string{}
	}
	if in.KernelMemory > 0 {
		warnings = append(warnings, noKernelMemory)
	}
	return writeJSON(w, http.StatusOK, container.UpdateResponse{Warnings: warnings})
}

func (s *Server) containerWait(w http.ResponseWriter, r *request) error {
	condition := r.text("condition")
	switch condition {
	case "":
		condition = "not-running"
	case "not-running", "next-exit", "removed":
	default:
		return invalid("invalid condition: %q", condition)
	}
	ch, err := s.engine.Wait(r.Context(), r.name(), condition)
	if err != nil {
		return err
	}
	// The header tells the client that its wait is registered: only then does it start the container.
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	select {
	case <-r.Context().Done():
		return nil
	case res, ok := <-ch:
		if !ok {
			return nil
		}
		out := container.WaitResponse{StatusCode: int64(res.ExitCode)}
		if res.Err != "" {
			out.Error = &container.WaitExitError{Message: res.Err}
		}
		return writeBody(w, out)
	}
}

// size reads a terminal's size.
func size(r *request) (h, w uint, err error) {
	if h, err = dimension(r.text("h"), "height"); err != nil {
		return 0, 0, err
	}
	w, err = dimension(r.text("w"), "width")
	return h, w, err
}

// dimension reads one side of a terminal: the kernel keeps 16 bits of it.
func dimension(text, what string) (uint, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		err = errors.Unwrap(err)
	} else if n < 0 || n > math.MaxUint16 {
		err = strconv.ErrRange
	}
	if err != nil {
		return 0, invalid("invalid resize %s %q: %v", what, text, err)
	}
	return uint(n), nil
}

func (s *Server) containerResize(w http.ResponseWriter, r *request) error {
	height, width, err := size(r)
	if err != nil {
		return err
	}
	return s.engine.Resize(r.Context(), r.name(), height, width)
}

func (s *Server) containerTop(w http.ResponseWriter, r *request) error {
	titles, rows, err := s.engine.Top(r.Context(), r.name(), r.text("ps_args"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, container.TopResponse{Titles: titles, Processes: rows})
}

func (s *Server) containerChanges(w http.ResponseWriter, r *request) error {
	changes, err := s.engine.Changes(r.Context(), r.name())
	if err != nil {
		return err
	}
	out := make([]container.FilesystemChange, 0, len(changes))
	for _, c := range changes {
		out = append(out, container.FilesystemChange{Kind: container.ChangeType(c.Kind), Path: c.Path})
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) containerExport(w http.ResponseWriter, r *request) error {
	if _, err := s.engine.Inspect(r.Context(), r.name(), false); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	out := &started{w: w}
	if err := s.engine.Export(r.Context(), r.name(), out); err != nil {
		return out.fail(err)
	}
	return nil
}

func (s *Server) containerPrune(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	until, err := f.until(time.Now())
	if err != nil {
		return err
	}
	pruned, err := s.engine.PruneContainers(r.Context(), func(i engine.Info) bool {
		return f.labels(i.Run.Labels) && (until.IsZero() || i.Created.Before(until))
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, container.PruneReport{ContainersDeleted: pruned.IDs, SpaceReclaimed: uint64(pruned.Bytes)})
}
