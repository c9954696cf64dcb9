package store

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cale/image"
)

// TestOtherTools reads an image that skopeo or umoci made.
func TestOtherTools(t *testing.T) {
	umoci, err := exec.LookPath("umoci")
	if err != nil {
		t.Skip("umoci is not installed")
	}
	work := dir(t)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(umoci, args...)
		cmd.Dir = work
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("umoci %v does not work here: %v\n%s", args, err, out)
		}
	}
	run("init", "--layout", "l")
	run("new", "--image", "l:x")
	os.MkdirAll(filepath.Join(work, "tree/etc"), 0o755)
	os.WriteFile(filepath.Join(work, "tree/etc/name"), []byte("umoci"), 0o640)
	os.Symlink("/etc", filepath.Join(work, "tree/link"))
	run("insert", "--image", "l:x", "tree/etc", "/etc")
	run("insert", "--image", "l:x", "tree/link", "/link")
	run("insert", "--image", "l:x", "--whiteout", "/etc/old")
	run("config", "--image", "l:x", "--config.env", "A=b", "--config.cmd", "/bin/true")

	s := openAt(t, filepath.Join(work, "store"))
	blobs, _ := filepath.Glob(filepath.Join(work, "l/blobs/sha256/*"))
	for _, b := range blobs {
		raw, _ := os.ReadFile(b)
		if _, err := s.Put("", raw); err != nil {
			t.Fatal(err)
		}
	}
	raw, _ := os.ReadFile(filepath.Join(work, "l/index.json"))
	var top struct{ Manifests []image.Descriptor }
	if err := json.Unmarshal(raw, &top); err != nil || len(top.Manifests) != 1 {
		t.Fatal(err)
	}
	img, err := s.Image(top.Manifests[0], image.Platform{})
	if err != nil {
		t.Fatal(err)
	}
	if img.Config.Run.Env[0] != "A=b" || img.Config.Run.Cmd[0] != "/bin/true" {
		t.Errorf("%+v", img.Config.Run)
	}
	for i, d := range img.Manifest.Layers {
		b, err := s.Open(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Layers.Unpack(context.Background(), b, d.MediaType, img.Config.DiffIDs[i])
		b.Close()
		if err != nil {
			t.Error(err)
		}
	}
	if lower, err := s.Layers.Lower(img.Config.DiffIDs); err != nil || len(lower) != 3 {
		t.Errorf("%v, %v", lower, err)
	}
	if err := s.SetName("x", top.Manifests[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Layers.Lower(img.Config.DiffIDs); err != nil {
		t.Errorf("collected: %v", err)
	}
	s.RemoveName("x")
	if freed, err := s.GC(context.Background()); err != nil || len(freed.Layers) != 3 {
		t.Errorf("%+v, %v", freed, err)
	}
}
