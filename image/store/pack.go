package store

import (
	"context"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"

	"cale/image"
)

// PutLayer stores a layer that write writes as a plain tar stream, compressed
// with gzip, and returns its descriptor and its diffID. Both are added to pin,
// so they stay until it is released.
func (s *Store) PutLayer(ctx context.Context, pin *Pin, write func(ctx context.Context, w io.Writer) error) (image.Descriptor, image.Digest, error) {
	desc, id, err := s.putLayer(ctx, pin, write)
	if err != nil {
		return desc, id, fmt.Errorf("store layer: %w", err)
	}
	return desc, id, nil
}

func (s *Store) putLayer(ctx context.Context, pin *Pin, write func(ctx context.Context, w io.Writer) error) (desc image.Descriptor, id image.Digest, err error) {
	u, err := s.NewUpload()
	if err != nil {
		return desc, id, err
	}
	defer func() {
		if err != nil {
			u.Cancel()
		}
	}()
	h := image.Digest{}.Hash()
	// The zero header time keeps equal content equal.
	zw, err := gzip.NewWriterLevel(u, gzip.DefaultCompression)
	if err != nil {
		return desc, id, err
	}
	if err := write(ctx, io.MultiWriter(zw, h)); err != nil {
		return desc, id, err
	}
	if err := zw.Close(); err != nil {
		return desc, id, err
	}
	id = image.FromHash(h)
	blob := image.FromHash(u.h)
	pin.Add(blob, id)
	desc, err = u.Commit(blob)
	desc.MediaType = image.MediaTypeLayerGzip
	return desc, id, err
}
