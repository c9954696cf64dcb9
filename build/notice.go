package build

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/opencontainers/go-digest"

	"cale/build/snapshot"
	"cale/image"
)

// noticing is a content store that notices when a snapshot's layer has been
// written: BuildKit writes it under the snapshot's name, and labels it with the
// digest of what it holds uncompressed. That makes the snapshot the layer that
// images are run from.
type noticing struct {
	content.Store
	snapshots *snapshot.Store
}

// Writer implements content.Store.
func (n noticing) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	w, err := n.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &noticingWriter{Writer: w, ref: o.Ref, snapshots: n.snapshots}, nil
}

type noticingWriter struct {
	content.Writer
	ref       string
	snapshots *snapshot.Store
}

// Commit implements content.Writer.
func (w *noticingWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	var info content.Info
	for _, o := range opts {
		if err := o(&info); err != nil {
			return err
		}
	}
	got := w.Digest()
	err := w.Writer.Commit(ctx, size, expected, opts...)
	// That the blob was there already is an error too, and as good.
	id := info.Labels[labels.LabelUncompressed]
	if id == "" {
		id = got.String()
	}
	if d, perr := image.ParseDigest(id); perr == nil {
		if nerr := w.snapshots.Became(ctx, w.ref, d); nerr != nil && err == nil {
			return nerr
		}
	}
	return err
}
