package docker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"cale/engine"
)

// diskUsage tells what everything takes on disk: before version 1.52 of the API as lists, since then as sums, with
// lists within when they are asked for, and beside if they are not: Docker's client for Python knows no others.
func (s *Server) diskUsage(w http.ResponseWriter, r *request) error {
	want := r.URL.Query()["type"]
	wanted := func(kind string) bool { return len(want) == 0 || slices.Contains(want, kind) }
	u, err := s.engine.DiskUsage(r.Context())
	if err != nil {
		return err
	}
	verbose := r.flag("verbose")
	var sums system.DiskUsage
	lists := map[string]any{}
	if wanted("image") {
		sums.ImageUsage = imagesUsage(&u)
		lists["Images"], lists["LayersSize"] = sums.ImageUsage.Items, u.LayersSize
	}
	if wanted("container") {
		sums.ContainerUsage = containersUsage(r, &u)
		lists["Containers"] = sums.ContainerUsage.Items
	}
	if wanted("volume") {
		sums.VolumeUsage = volumesUsage(&u)
		lists["Volumes"] = sums.VolumeUsage.Items
	}
	if wanted("build-cache") {
		raw, err := s.buildCache(r)
		if err != nil {
			return err
		}
		if sums.BuildCacheUsage, err = buildUsage(raw); err != nil {
			return err
		}
		lists["BuildCache"] = raw
	} else {
		lists["BuildCache"] = []any{}
	}
	if r.before("1.52") {
		return writeJSON(w, http.StatusOK, lists)
	}
	if !verbose {
		dropItems(&sums)
	}
	if verbose {
		return writeJSON(w, http.StatusOK, sums)
	}
	return writeJSON(w, http.StatusOK, struct {
		system.DiskUsage
		Images     any `json:",omitempty"`
		LayersSize any `json:",omitempty"`
		Containers any `json:",omitempty"`
		Volumes    any `json:",omitempty"`
		BuildCache any `json:",omitempty"`
	}{sums, lists["Images"], lists["LayersSize"], lists["Containers"], lists["Volumes"], lists["BuildCache"]})
}

func dropItems(u *system.DiskUsage) {
	if u.ImageUsage != nil {
		u.ImageUsage.Items = nil
	}
	if u.ContainerUsage != nil {
		u.ContainerUsage.Items = nil
	}
	if u.VolumeUsage != nil {
		u.VolumeUsage.Items = nil
	}
	if u.BuildCacheUsage != nil {
		u.BuildCacheUsage.Items = nil
	}
}

func imagesUsage(u *engine.Usage) *image.DiskUsage {
	out := &image.DiskUsage{Items: []image.Summary{}, TotalCount: int64(len(u.Images)), TotalSize: u.LayersSize}
	var kept int64
	for _, i := range u.Images {
		out.Items = append(out.Items, image.Summary{ID: i.ID, RepoTags: orNone(i.Names), RepoDigests: orNone(i.Digests), Created: i.Created.Unix(),
			Size: i.Size, SharedSize: i.Shared, Containers: int64(i.Containers), Labels: i.Labels})
		if i.Containers > 0 {
			out.ActiveCount++
			kept += i.Size - i.Shared
		}
	}
	out.Reclaimable = max(0, out.TotalSize-kept)
	return out
}

func containersUsage(r *request, u *engine.Usage) *container.DiskUsage {
	out := &container.DiskUsage{Items: []container.Summary{}, TotalCount: int64(len(u.Containers))}
	for i := range u.Containers {
		c := &u.Containers[i]
		out.Items = append(out.Items, r.summary(c))
		var size int64
		if c.SizeRw != nil {
			size = *c.SizeRw
		}
		out.TotalSize += size
		switch c.State.Status {
		case engine.Running, engine.Paused, engine.Restarting:
			out.ActiveCount++
		default:
			out.Reclaimable += size
		}
	}
	return out
}

func volumesUsage(u *engine.Usage) *volume.DiskUsage {
	out := &volume.DiskUsage{Items: []volume.Volume{}, TotalCount: int64(len(u.Volumes))}
	for _, v := range u.Volumes {
		dv := dockerVolume(v.Volume)
		dv.UsageData = &volume.UsageData{RefCount: int64(v.Refs), Size: v.Size}
		out.Items = append(out.Items, dv)
		out.TotalSize += v.Size
		if v.Refs > 0 {
			out.ActiveCount++
		} else {
			out.Reclaimable += v.Size
		}
	}
	slices.SortFunc(out.Items, func(a, b volume.Volume) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func buildUsage(records []json.RawMessage) (*build.DiskUsage, error) {
	out := &build.DiskUsage{Items: []build.CacheRecord{}, TotalCount: int64(len(records))}
	for _, raw := range records {
		var c build.CacheRecord
		if err := json.Unmarshal(raw, &c); err != nil {
			return nil, fmt.Errorf("build cache: %w", err)
		}
		out.Items = append(out.Items, c)
		out.TotalSize += c.Size
		if c.InUse {
			out.ActiveCount++
		} else if !c.Shared {
			out.Reclaimable += c.Size
		}
	}
	return out, nil
}
