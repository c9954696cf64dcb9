package store

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"testing"

	bolt "go.etcd.io/bbolt"

	"cale/image"
)

// TestNameComesLast: a name is written only after a sync that all it leads to was
// there for, its layers too, and not at all if the disk refuses that; and what
// was refused is synced the next time.
func TestNameComesLast(t *testing.T) {
	root := dir(t)
	s := openAt(t, root)
	if s.db.NoSync {
		t.Error("meta.db is not synced")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755})
	w.Close()
	diffID := image.FromBytes(b.Bytes())
	if _, err := s.Layers.Unpack(context.Background(), bytes.NewReader(b.Bytes()), "", diffID); err != nil {
		t.Skip(err)
	}
	target, digests := putImage(t, s, 1)

	inBook := func(bucket []byte, key string) (there bool) {
		s.db.View(func(tx *bolt.Tx) error {
			there = tx.Bucket(bucket).Get([]byte(key)) != nil
			return nil
		})
		return there
	}
	syncs := 0
	var refuse error
	s.sync = func() error {
		syncs++
		for _, d := range digests {
			if _, err := s.Stat(d); err != nil {
				t.Errorf("synced before it was there: %v", err)
			}
			if inBook(bucketSynced, d.String()) {
				t.Errorf("%s is noted as synced before it is", d)
			}
		}
		if !s.Layers.Has(diffID) || inBook(bucketSynced, layerKey(diffID)) {
			t.Error("the layer is not there, or noted as synced before it is")
		}
		if inBook(bucketNames, "a") {
			t.Error("the name was there before the sync")
		}
		return refuse
	}
	refuse = errors.New("input/output error")
	if err := s.SetName("a", target); !errors.Is(err, refuse) {
		t.Errorf("the disk failed, and the answer was %v", err)
	}
	if inBook(bucketNames, "a") || syncs != 1 {
		t.Errorf("the name was set all the same, or there were %d syncs", syncs)
	}
	refuse = nil
	if err := s.SetName("a", target); err != nil || syncs != 2 {
		t.Errorf("%v, after %d syncs", err, syncs)
	}
	for _, d := range digests {
		if !inBook(bucketSynced, d.String()) {
			t.Errorf("%s is not noted as synced", d)
		}
	}
	if !inBook(bucketSynced, layerKey(diffID)) || !inBook(bucketNames, "a") {
		t.Error("the layer is not noted as synced, or there is no name")
	}
	// A packed layer that is dropped was all there is of it but for its tree: that
	// must last before.
	s.sync = func() error {
		syncs++
		if _, err := s.Stat(digests[0]); err != nil {
			t.Error("the blob was removed before the sync")
		}
		return nil
	}
	s.Layers.Refresh(diffID)
	if err := s.SetOrigin(Origin{Blob: image.Descriptor{Digest: digests[0], Size: 1000}, DiffID: diffID, From: []image.Reference{{Domain: "x", Path: "y"}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(digests[0]); err != nil || syncs != 3 {
		t.Errorf("%v, after %d syncs", err, syncs)
	}
	if _, err := s.Stat(digests[0]); !errors.Is(err, ErrNotFound) {
		t.Errorf("it was not dropped: %v", err)
	}
}
