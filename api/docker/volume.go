package docker

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/volume"

	"cale/engine"
)

func dockerVolume(v engine.Volume) volume.Volume {
	return volume.Volume{
		CreatedAt: v.Created.Format(time.RFC3339), Driver: v.Driver, Labels: v.Labels, Mountpoint: v.Mountpoint,
		Name: v.Name, Options: v.Options, Scope: "local",
	}
}

func (s *Server) volumeList(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r, "dangling", "driver", "label", "label!", "name")
	if err != nil {
		return err
	}
	dangling, set, err := f.flag("dangling")
	if err != nil {
		return err
	}
	all, err := s.engine.Volumes(r.Context())
	if err != nil {
		return err
	}
	used := map[string]bool{}
	if set {
		for _, c := range s.engine.List(r.Context(), false) {
			for _, m := range c.Mounts {
				used[m.Name] = true
			}
		}
	}
	out := volume.ListResponse{Volumes: []volume.Volume{}, Warnings: []string{}}
	for _, v := range all {
		if set && dangling == used[v.Name] || !f.labels(v.Labels) ||
			!f.match("driver", func(x string) bool { return x == v.Driver }) ||
			!f.match("name", func(x string) bool { return strings.Contains(v.Name, x) }) {
			continue
		}
		out.Volumes = append(out.Volumes, dockerVolume(v))
	}
	slices.SortFunc(out.Volumes, func(a, b volume.Volume) int { return strings.Compare(a.Name, b.Name) })
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) volumeCreate(w http.ResponseWriter, r *request) error {
	var in volume.CreateRequest
	if err := r.decode(&in); err != nil {
		return err
	}
	if in.ClusterVolumeSpec != nil {
		return notBuilt{"a cluster volume"}
	}
	v, err := s.engine.VolumeCreate(r.Context(), in.Name, in.Driver, in.DriverOpts, in.Labels)
	e := entryOf(r.Context())
	e.Object, e.Powers = in.Name, devicePowers(in.DriverOpts)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, dockerVolume(v))
}

func (s *Server) volumeInspect(w http.ResponseWriter, r *request) error {
	v, err := s.engine.Volume(r.Context(), r.name())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, dockerVolume(v))
}

func (s *Server) volumeRemove(w http.ResponseWriter, r *request) error {
	return noContent(w, s.engine.VolumeRemove(r.detached(), r.name(), r.flag("force")))
}

func (s *Server) volumePrune(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r, "label", "label!", "all")
	if err != nil {
		return err
	}
	all, _, err := f.flag("all")
	if err != nil {
		return err
	}
	p, err := s.engine.PruneVolumes(r.detached(), all || r.before("1.42"), func(v engine.Volume) bool { return f.labels(v.Labels) })
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, volume.PruneReport{VolumesDeleted: orNone(p.IDs), SpaceReclaimed: uint64(p.Bytes)})
}

func (s *Server) volumeSnapshot(w http.ResponseWriter, r *request) error {
	var in struct {
		Name    string
		Labels  map[string]string
		NoPause bool
	}
	if err := r.decode(&in); err != nil {
		return err
	}
	v, err := s.engine.VolumeSnapshot(r.Context(), r.name(), engine.VolumeSnapshotOptions{Name: in.Name, Labels: in.Labels, NoPause: in.NoPause})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, dockerVolume(v))
}

func (s *Server) volumeExport(w http.ResponseWriter, r *request) error {
	w.Header().Set("Content-Type", "application/x-tar")
	out := &started{w: w}
	if err := s.engine.VolumeExport(r.Context(), r.name(), out); err != nil {
		return out.fail(err)
	}
	return nil
}

func (s *Server) volumeImport(w http.ResponseWriter, r *request) error {
	body, done, err := plain(r.Body)
	if err != nil {
		return err
	}
	defer done()
	v, err := s.engine.VolumeImport(r.Context(), r.name(), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, dockerVolume(v))
}
