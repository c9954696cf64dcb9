package build

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"

	"cale/build/snapshot"
)

// ourLayers is a content store in which layers of snapshots are written by our
// own comparer alone. BuildKit would first write the changes of an overlayfs
// itself, under the snapshot's name, and turns to the comparer when it can't
// (unless forceOverlay is set).
type ourLayers struct {
	content.Store
	snapshots *snapshot.Store
}

// Writer implements content.Store.
func (s ourLayers) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Desc.Digest == "" && s.snapshots.Own(ctx, o.Ref) {
		return nil, fmt.Errorf("the layer of snapshot %s is the comparer's to write: %w", o.Ref, errdefs.ErrNotImplemented)
	}
	return s.Store.Writer(ctx, opts...)
}

// forceOverlay is the variable that keeps BuildKit, for its own tests, from
// turning to the comparer.
const forceOverlay = "BUILDKIT_DEBUG_FORCE_OVERLAY_DIFF"
