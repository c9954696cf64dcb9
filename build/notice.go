package build

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

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
		return nil, fmt.Errorf("the layer of snapshot %s is %s: %w", o.Ref, comparers, errdefs.ErrNotImplemented)
	}
	return s.Store.Writer(ctx, opts...)
}

const comparers = "the comparer's to write"

// Log is how BuildKit's log is written: not with its notice that a layer is
// the comparer's, which each is.
type Log struct{ logrus.Formatter }

// Format implements logrus.Formatter.
func (l Log) Format(e *logrus.Entry) ([]byte, error) {
	if strings.Contains(e.Message, comparers) {
		return nil, nil
	}
	return l.Formatter.Format(e)
}

// forceOverlay is the variable that keeps BuildKit, for its own tests, from
// turning to the comparer.
const forceOverlay = "BUILDKIT_DEBUG_FORCE_OVERLAY_DIFF"
