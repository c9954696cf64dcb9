package engine

import (
	"context"
	"slices"
	"time"
)

// ImageHistory gives the steps of an image's making, the last first.
func (e *Engine) ImageHistory(ctx context.Context, ref, platform string) ([]History, error) {
	img, _, err := e.resolveImage(ref, platform)
	if err != nil {
		return nil, err
	}
	var out []History
	layer := 0
	for _, h := range img.Config.History {
		step := History{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			step.Created = *h.Created
		}
		if !h.EmptyLayer && layer < len(img.Manifest.Layers) {
			step.Size = e.layerSize(img, layer)
			layer++
		}
		out = append(out, step)
	}
	slices.Reverse(out)
	if len(out) == 0 {
		out = []History{{Created: time.Time{}}}
	}
	info, err := e.ImageFor(ctx, ref, platform)
	if err != nil {
		return nil, err
	}
	out[0].ID, out[0].Tags = info.ID, info.Names
	return out, nil
}
