package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"cale/image"
)

// TestReboot: what was not synced when the machine went down is not trusted.
func TestReboot(t *testing.T) {
	root := dir(t)
	s := openAt(t, root)
	named, nd := putImage(t, s, 1)
	if err := s.SetName("a", named); err != nil {
		t.Fatal(err)
	}
	_, loose := putImage(t, s, 2)
	s.Close()

	s = openAt(t, root) // the same boot: all is whole
	if _, err := s.Stat(loose[0]); err != nil {
		t.Error(err)
	}
	s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketSystem).Put(keyBoot, []byte("another")) })
	s.Close()

	s = openAt(t, root)
	for _, d := range nd {
		if _, err := s.Stat(d); err != nil {
			t.Errorf("a synced blob: %v", err)
		}
	}
	for _, d := range loose {
		if _, err := s.Stat(d); !errors.Is(err, ErrNotFound) {
			t.Errorf("an unsynced blob: %v", err)
		}
	}
	// Its bytes are a beginning all the same: what the disk has kept of them need
	// not be fetched again.
	raw := noise(4<<20, 9)
	desc := image.Descriptor{Digest: image.FromBytes(raw), Size: int64(len(raw))}
	if err := s.PutAs(desc, raw); err != nil {
		t.Fatal(err)
	}
	s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketSystem).Put(keyBoot, []byte("a third")) })
	s.Close()
	os.Truncate(s.blobPath(desc.Digest), 3<<20)
	s = openAt(t, root)
	w, err := s.Writer(context.Background(), desc)
	if err != nil {
		t.Fatal(err)
	}
	if w.Offset() != 3<<20 {
		t.Errorf("it goes on from %d", w.Offset())
	}
	if _, err := w.Write(raw[w.Offset():]); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Error(err)
	}
}

// TestDamagedBlob: bits that changed on disk are noticed where they steer.
func TestDamagedBlob(t *testing.T) {
	root := dir(t)
	s := openAt(t, root)
	m, _ := putImage(t, s, 1)
	s.SetName("a", m)
	path := s.blobPath(m.Digest)
	b, _ := os.ReadFile(path)
	b[len(b)/2] ^= 1
	os.WriteFile(path, b, 0o600)
	if _, err := s.Image(m, image.Platform{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v", err)
	}
	if _, err := s.GC(context.Background()); err == nil {
		t.Error("collected although it is not known what is needed")
	}
	if all, _ := s.Blobs(); len(all) != 3 {
		t.Errorf("%d blobs left", len(all))
	}
}

// TestKill kills a process that fills a store, again and again, and checks
// what the next one finds.
func TestKill(t *testing.T) {
	if root := os.Getenv("CALE_STORE_VICTIM"); root != "" {
		victim(root)
		return
	}
	root := dir(t)
	for round := range 6 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "CALE_STORE_VICTIM="+root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It says when it has begun; then it may die at any instruction.
		io.ReadFull(out, make([]byte, 1))
		time.Sleep(time.Duration(rand.Intn(40)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()

		s := openAt(t, root)
		names, err := s.Names()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if _, err := s.Image(n.Target, image.Platform{}); err != nil {
				t.Errorf("round %d: %s: %v", round, n.Name, err)
			}
			if miss, err := s.Missing(n.Target, image.Platform{}); err != nil || len(miss) > 0 {
				t.Errorf("round %d: %s misses %v (%v)", round, n.Name, miss, err)
			}
		}
		blobs, err := s.Blobs()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range blobs {
			if _, err := s.Read(d, 1<<20); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if problems, _, err := s.Check(context.Background()); err != nil || len(problems) > 0 {
			t.Errorf("round %d: %v, %v", round, problems, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCheck(t *testing.T) {
	s := openAt(t, dir(t))
	ctx := context.Background()
	one, parts := putImage(t, s, 1)
	two, _ := putImage(t, s, 2)
	s.SetName("one", one)
	s.SetName("two", two)
	if problems, _, err := s.Check(ctx); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	s.Remove(parts[0])
	os.WriteFile(s.blobPath(parts[1]), []byte("lie"), 0o600)
	problems, _, err := s.Check(ctx)
	if err != nil || len(problems) != 2 || !strings.HasPrefix(problems[0].Object(), "blob "+parts[1].String()) || problems[1].Object() != "image one" {
		t.Errorf("%v, %v", problems, err)
	}
}

func victim(root string) {
	s, err := Open(root)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.Write([]byte{'.'})
	for seed := time.Now().UnixNano(); ; seed++ {
		raw := noise(200000, seed%5) // the same few again: their parts are continued
		w, err := s.Writer(context.Background(), descriptor(raw))
		if err == nil {
			for off := w.Offset(); off < int64(len(raw)); {
				n, _ := w.Write(raw[off:min(off+5000, int64(len(raw)))])
				off += int64(n)
			}
			if err := w.Commit(); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
		c := &image.Config{Platform: image.Host(), DiffIDs: []image.Digest{image.FromBytes(raw)}, Author: fmt.Sprint(seed)}
		craw, _ := c.Encode()
		cd, _ := s.Put(image.MediaTypeConfig, craw)
		m := &image.Manifest{Config: cd, Layers: []image.Descriptor{descriptor(raw)}}
		mraw, _ := m.Encode()
		md, _ := s.Put(image.MediaTypeManifest, mraw)
		if err := s.SetName(fmt.Sprint(seed%7), md); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		if seed%9 == 0 {
			s.GC(context.Background())
		}
	}
}
