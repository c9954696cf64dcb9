package docker

import (
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/volume"
)

// diskUsage tells what everything takes on disk.
func (s *Server) diskUsage(w http.ResponseWriter, r *request) error {
	want := r.URL.Query()["type"]
	wanted := func(kind string) bool { return len(want) == 0 || slices.Contains(want, kind) }
	u, err := s.engine.DiskUsage(r.Context())
	if err != nil {
		return err
	}
	out := map[string]any{"BuildCache": []any{}}
	if wanted("build-cache") {
		if out["BuildCache"], err = s.buildCache(r); err != nil {
			return err
		}
	}
	if wanted("image") {
		images := make([]any, 0, len(u.Images))
		for _, i := range u.Images {
			images = append(images, map[string]any{
				"Id": i.ID, "ParentId": "", "RepoTags": orNone(i.Names), "RepoDigests": orNone(i.Digests), "Created": i.Created.Unix(),
				"Size": i.Size, "SharedSize": i.Shared, "Containers": i.Containers, "Labels": i.Labels,
			})
		}
		out["Images"], out["LayersSize"] = images, u.LayersSize
	}
	if wanted("container") {
		containers := make([]any, 0, len(u.Containers))
		for i := range u.Containers {
			containers = append(containers, summary(&u.Containers[i]))
		}
		out["Containers"] = containers
	}
	if wanted("volume") {
		volumes := make([]volume.Volume, 0, len(u.Volumes))
		for _, v := range u.Volumes {
			dv := dockerVolume(v.Volume)
			dv.UsageData = &volume.UsageData{RefCount: int64(v.Refs), Size: v.Size}
			volumes = append(volumes, dv)
		}
		slices.SortFunc(volumes, func(a, b volume.Volume) int { return strings.Compare(a.Name, b.Name) })
		out["Volumes"] = volumes
	}
	return writeJSON(w, http.StatusOK, out)
}
