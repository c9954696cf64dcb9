package store

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"testing"

	"cale/image"
)

func TestPutLayer(t *testing.T) {
	s := openAt(t, dir(t))
	pin := s.Pin("test")
	ctx := context.Background()
	desc, id, err := s.PutLayer(ctx, pin, func(_ context.Context, w io.Writer) error {
		tw := tar.NewWriter(w)
		tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: 1, Mode: 0o644})
		tw.Write([]byte("x"))
		return tw.Close()
	})
	if err != nil || desc.MediaType != image.MediaTypeLayerGzip {
		t.Fatal(err)
	}
	if freed, err := s.GC(ctx); err != nil || freed.Blobs != 0 {
		t.Errorf("%+v, %v", freed, err)
	}
	b, err := s.Open(desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if n, err := s.Layers.Unpack(ctx, b, desc.MediaType, id); err != nil || n != 1 {
		t.Errorf("%d bytes, %v", n, err)
	}
	pin.Release()
	if freed, err := s.GC(ctx); err != nil || freed.Blobs != 1 || len(freed.Layers) != 1 {
		t.Errorf("%+v, %v", freed, err)
	}
	broken := errors.New("broken")
	if _, _, err := s.PutLayer(ctx, pin, func(context.Context, io.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
