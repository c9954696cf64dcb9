package store

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"cale/image"
)

func TestHolders(t *testing.T) {
	s := openAt(t, dir(t))
	one, parts := putImage(t, s, 1)
	_, other := putImage(t, s, 2)
	x := &image.Index{Manifests: []image.Descriptor{one, descriptor([]byte("never pulled"))}}
	raw, _ := x.Encode()
	idx, err := s.Put(image.MediaTypeIndex, raw)
	if err != nil {
		t.Fatal(err)
	}
	s.SetName("b", idx)
	s.SetName("a", one)
	s.AddLease("c", one.Digest, parts[1])
	pin := s.Pin("test")
	defer pin.Release()
	pin.Add(parts[0])
	text := func(want ...image.Digest) string {
		all, err := s.Holders(context.Background(), want...)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, h := range all {
			out = append(out, fmt.Sprintf("%s%s%s:%d", h.Name, h.Lease, h.Work, len(h.Path)))
			if !slices.Contains(want, h.Path[len(h.Path)-1]) {
				t.Errorf("%v does not lead to %v", h.Path, want)
			}
		}
		return strings.Join(out, " ")
	}
	// The layer is a blob and, under the same digest, unpacked: the lease holds its config, which is as near.
	if got := text(parts[0]); got != "a:2 b:3 c:2 test:1" {
		t.Error(got)
	}
	if got := text(idx.Digest); got != "b:1" {
		t.Error(got)
	}
	if got := text(idx.Digest, one.Digest); got != "a:1 b:1 c:1" {
		t.Error(got)
	}
	if got := text(other[2]); got != "" {
		t.Error(got)
	}
}

// TestRepair drops a damaged blob, and puts a layer right from its blob.
func TestRepair(t *testing.T) {
	s := openAt(t, dir(t))
	ctx := context.Background()
	pin := s.Pin("test")
	defer pin.Release()
	target, _ := putImage(t, s, 1)
	s.SetName("one", target)
	img, err := s.Image(target, image.Platform{})
	if err != nil {
		t.Fatal(err)
	}
	blob := img.Manifest.Layers[0].Digest
	os.WriteFile(s.blobPath(blob), []byte("lie"), 0o600)
	problems, done, err := s.Check(ctx)
	if err != nil || len(problems) != 1 || problems[0].Digest != blob || done.Blobs != 3 || done.Images != 1 {
		t.Fatalf("%v, %+v, %v", problems, done, err)
	}
	if did, err := s.Repair(ctx, problems[0]); err != nil || did == "" {
		t.Error(did, err)
	}
	if did, err := s.Repair(ctx, problems[0]); err == nil && did != "" {
		t.Error("repaired twice:", did)
	}
	problems, _, err = s.Check(ctx)
	if err != nil || len(problems) != 1 || problems[0].Kind != KindImage || !strings.Contains(problems[0].Text, blob.String()) {
		t.Errorf("%v, %v", problems, err)
	}
}
