package snapshot

import (
	"bufio"
	stdgzip "compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/moby/buildkit/util/overlay"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"cale/filetree"
	"cale/image"
	"cale/layer"
)

// Comparer implements containerd's diff.Comparer: a snapshot's own tree is
// written as the layer that it is, whole, and becomes that layer. Everything in
// the tree is a change, so nothing is compared: neither a file of equal size
// and time nor an extended attribute is lost.
type Comparer struct {
	Snapshots *Store
	Content   content.Store
	// Other compares what is no snapshot's own tree.
	Other diff.Comparer
}

var _ diff.Comparer = (*Comparer)(nil)

// Compare implements diff.Comparer.
func (c *Comparer) Compare(ctx context.Context, lower, upper []mount.Mount, opts ...diff.Opt) (ocispec.Descriptor, error) {
	var o diff.Config
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	dir, err := overlay.GetUpperdir(lower, upper)
	if err != nil || !c.Snapshots.Own(ctx, o.Reference) {
		return c.Other.Compare(ctx, lower, upper, opts...)
	}
	desc, err := c.write(ctx, filepath.Dir(dir), o)
	if err != nil {
		return desc, fmt.Errorf("write the layer of snapshot %s: %w", o.Reference, err)
	}
	return desc, nil
}

func (c *Comparer) write(ctx context.Context, dir string, o diff.Config) (desc ocispec.Descriptor, err error) {
	root, err := filetree.Open(filepath.Join(dir, "fs"))
	if err != nil {
		return desc, err
	}
	defer root.Close()
	w, err := content.OpenWriter(ctx, c.Content, content.WithRef(o.Reference), content.WithDescriptor(ocispec.Descriptor{MediaType: o.MediaType}))
	if err != nil {
		return desc, err
	}
	defer w.Close()
	if err := w.Truncate(0); err != nil {
		return desc, err
	}
	buf := bufio.NewWriterSize(w, 128<<10)
	plain := digest.SHA256.Digester()
	if err := compressed(ctx, buf, o, func(to io.Writer) error {
		return layer.Diff(ctx, io.MultiWriter(to, plain.Hash()), root)
	}); err != nil {
		return desc, err
	}
	if err := buf.Flush(); err != nil {
		return desc, err
	}
	sum := w.Digest()
	label := map[string]string{labels.LabelUncompressed: plain.Digest().String()}
	if err := w.Commit(ctx, 0, sum, content.WithLabels(label)); err != nil && !errdefs.IsAlreadyExists(err) {
		return desc, err
	}
	info, err := c.Content.Info(ctx, sum)
	if err != nil {
		return desc, err
	}
	if info.Labels[labels.LabelUncompressed] == "" {
		info.Labels = label
		if _, err := c.Content.Update(ctx, info, "labels."+labels.LabelUncompressed); err != nil {
			return desc, err
		}
	}
	diffID, err := image.ParseDigest(plain.Digest().String())
	if err != nil {
		return desc, err
	}
	if err := c.Snapshots.became(ctx, o.Reference, dir, diffID); err != nil {
		return desc, err
	}
	return ocispec.Descriptor{MediaType: o.MediaType, Digest: sum, Size: info.Size}, nil
}

// compressed runs write with a writer that compresses as asked.
func compressed(ctx context.Context, to io.Writer, o diff.Config, write func(io.Writer) error) error {
	if o.Compressor == nil {
		return write(to)
	}
	z, err := o.Compressor(to, o.MediaType)
	if err != nil {
		return err
	}
	if level, ok := gzipLevel(z); ok {
		if z, err = gzip.NewWriterLevel(to, level); err != nil {
			return err
		}
	}
	return errors.Join(write(z), z.Close())
}

// gzipLevel is the level of the standard library's gzip, which has written
// nothing yet. BuildKit takes that one; the other is several times as fast, and
// most where there is nothing to compress.
func gzipLevel(z io.WriteCloser) (level int, ok bool) {
	w, ok := z.(*stdgzip.Writer)
	if !ok {
		return 0, false
	}
	f := reflect.ValueOf(w).Elem().FieldByName("level")
	if !f.IsValid() || !f.CanInt() {
		return 0, false
	}
	return int(f.Int()), true
}
