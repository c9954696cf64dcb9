package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/images"
	"cale/test/stack"
)

// compressed are the blobs in the store that look like gzip.
func compressed(t *testing.T, root string) (list []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(root, "blobs/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if raw, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(raw), "\x1f\x8b") {
			list = append(list, name)
		}
	}
	return list
}

// TestDropCompressed: with layers kept unpacked only, an image runs, is built on, saved, pushed, served and checked as
// any other, and none of it leaves a compressed layer behind. One that can't be had again any more is told.
func TestDropCompressed(t *testing.T) {
	s := stack.New(t)
	setting(t, s, "images.json", `{"compressed": "drop"}`)
	at := otherRegistry(t, "", "")
	files, err := images.BusyboxFiles()
	if err != nil {
		t.Fatal(err)
	}
	// Another layer than that of the stack's own image, which was pushed here and is kept.
	img, err := images.New(images.Spec{Layers: [][]images.File{append(files, images.File{Name: "other", Data: []byte("x")})}})
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Push(t.Context(), at, "box:1"); err != nil {
		t.Fatal(err)
	}
	box, before := at+"/box:1", len(compressed(t, s.Root))
	dropped := func() {
		t.Helper()
		stack.Until(t, "compressed layers are gone", func() bool { return len(compressed(t, s.Root)) == before })
	}
	want := s.Cale("manifest", "inspect", box).OK(t)
	s.Cale("pull", "-q", box).OK(t)
	dropped()
	if out := s.Cale("run", "--rm", box, "echo", "hello").OK(t); out != "hello\n" {
		t.Errorf("%q", out)
	}
	s.Cale("system", "check").OK(t)

	tar := filepath.Join(t.TempDir(), "image.tar")
	s.Cale("save", "-o", tar, box).OK(t)
	dropped()
	other := stack.New(t)
	other.Cale("load", "-i", tar).OK(t)
	if out := other.Cale("run", "--rm", box, "echo", "hello").OK(t); out != "hello\n" {
		t.Errorf("%q", out)
	}

	s.Cale("tag", box, at+"/pushed:1").OK(t)
	s.Cale("push", "-q", at+"/pushed:1").OK(t)
	dropped()
	if out := s.Cale("manifest", "inspect", at+"/pushed:1").OK(t); out != want {
		t.Errorf("the other registry has\n%s\nnot\n%s", out, want)
	}

	context := t.TempDir()
	if err := os.WriteFile(filepath.Join(context, "Dockerfile"), []byte("FROM "+box+"\nRUN echo made >/made\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Cale("build", "-q", "-t", at+"/built:1", context).OK(t)
	s.Cale("push", "-q", at+"/built:1").OK(t)
	if out := other.Cale("run", "--rm", at+"/built:1", "cat", "/made").OK(t); out != "made\n" {
		t.Errorf("%q", out)
	}

	before++ // what the step has made is here alone
	dropped()

	// What the engine serves itself is whole for others.
	served := strings.TrimSpace(s.Cale("registry", "-q", "--listen", "127.0.0.1:0").OK(t))
	s.Cale("tag", box, served+"/box:1").OK(t)
	other.Cale("rmi", "-f", box, at+"/built:1").OK(t)
	other.Cale("image", "prune", "-af").OK(t)
	if out := other.Cale("run", "--rm", served+"/box:1", "echo", "hello").OK(t); out != "hello\n" {
		t.Errorf("%q", out)
	}
	dropped()

	setting(t, s, "images.json", `{"compressed": "perhaps"}`)
	if r := s.Cale("pull", "-q", at+"/built:1").Exit(t, 1); !strings.Contains(r.Stderr, "it can be keep or drop") {
		t.Errorf("%q", r.Stderr)
	}
}
