package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cale/test/images"
	"cale/test/stack"
)

// emptied is a fresh busybox, from a registry that a prune does not empty, and nothing else.
func emptied(t *testing.T, s *stack.Stack) (name string) {
	t.Helper()
	at := otherRegistry(t, "", "")
	if err := images.Push(t.Context(), at, "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	s.Cale("image", "prune", "-af").OK(t)
	name = at + "/busybox"
	s.Cale("pull", "-q", name).OK(t)
	return name
}

type usage struct{ Type, TotalCount, Active, Size, Reclaimable string }

func diskUsage(t *testing.T, s *stack.Stack, client string) map[string]usage {
	t.Helper()
	out := map[string]usage{}
	for _, line := range strings.Split(strings.TrimSpace(s.Do("", client, "system", "df", "--format", "json").OK(t)), "\n") {
		var u usage
		if err := json.Unmarshal([]byte(line), &u); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out[u.Type] = u
	}
	return out
}

// TestPrune: what takes room, and how it is had back.
func TestPrune(t *testing.T) {
	newest(t, func(t *testing.T, s *stack.Stack, client string) {
		base := emptied(t, s)
		do := func(args ...string) stack.Result { return s.Do("", client, args...) }
		id := func(args ...string) string { return strings.TrimSpace(do(args...).OK(t)) }
		do("run", "--name", "p1", base, "sh", "-c", "echo 12345 > /f").OK(t)
		do("run", "-d", "--name", "p2", "-v", "held:/v", base, "sleep", "1000").OK(t)
		do("volume", "create", "named").OK(t)
		anonymous := id("volume", "create")
		p1 := id("inspect", "-f", "{{.Id}}", "p1")
		kept := id("commit", "p1", "kept:1")
		untagged := id("commit", "p1")
		retag(t, s, "kept:1", "kept:2")
		df := diskUsage(t, s, client)
		for kind, want := range map[string]string{"Images": "3 1", "Containers": "2 1", "Local Volumes": "3 1", "Build Cache": "0 0"} {
			if u := df[kind]; u.TotalCount+" "+u.Active != want {
				t.Errorf("%s: %+v, not %s", kind, u, want)
			}
		}
		if u := df["Containers"]; u.Size != "6B" || u.Reclaimable != "6B (100%)" {
			t.Errorf("containers: %+v", u)
		}
		if u := df["Images"]; !strings.HasSuffix(u.Size, "MB") {
			t.Errorf("images: %+v", u)
		}
		if out := do("system", "df", "-v").OK(t); !strings.Contains(out, "kept") || !strings.Contains(out, "Local Volumes space usage:") || !strings.Contains(out, "Build cache usage: 0B") {
			t.Errorf("df -v says\n%s", out)
		}
		// No is the default, and no failure; the older docker failed then.
		r := s.Do("n\n", client, "system", "prune", "--volumes", "--filter", "label=x")
		if want := "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n" +
			"  - all anonymous volumes not used by at least one container\n  - all dangling images\n  - unused build cache\n\n" +
			"  Items to be pruned will be filtered with:\n  - label=x\n\nAre you sure you want to continue? [y/N] "; r.Code != 0 || r.Stdout != want {
			t.Errorf("system prune asks %q (%d)", r.Stdout, r.Code)
		}
		has := func(out string, lines ...string) {
			t.Helper()
			for _, l := range lines {
				if !strings.Contains(out, l+"\n") {
					t.Errorf("without %q:\n%s", l, out)
				}
			}
		}
		out := do("image", "prune", "-f").OK(t)
		has(out, "Deleted Images:", "deleted: "+untagged)
		if strings.Contains(out, kept) || !strings.Contains(out, "Total reclaimed space: ") {
			t.Errorf("image prune says\n%s", out)
		}
		has(do("container", "prune", "-f").OK(t), "Deleted Containers:", p1, "Total reclaimed space: 6B")
		has(do("image", "prune", "-af").OK(t), "untagged: kept:1", "untagged: kept:2", "deleted: "+kept)
		has(do("volume", "prune", "-f").OK(t), "Deleted Volumes:", anonymous, "Total reclaimed space: 0B")
		has(do("volume", "prune", "-af").OK(t), "Deleted Volumes:", "named")
		if left := id("volume", "ls", "-q"); left != "held" {
			t.Errorf("left of the volumes: %s", left)
		}
		do("exec", "p2", "true").OK(t) // and its image is there
		do("network", "create", "unused").OK(t)
		do("run", "--name", "p3", "-v", "/anon", base, "true").OK(t)
		p3 := id("inspect", "-f", "{{.Id}}", "p3")
		has(do("system", "prune", "-af", "--volumes").OK(t), p3, "unused")
		do("rm", "-f", "p2").OK(t)
		has(do("system", "prune", "-af", "--volumes").OK(t), "untagged: "+base+":latest")
		s.Cale("volume", "prune", "-af").OK(t)
		for kind, u := range diskUsage(t, s, client) {
			if u.TotalCount != "0" {
				t.Errorf("left: %s %+v", kind, u)
			}
		}
	})
}

// TestPruneKeepsUsed: a prune leaves the image of a container that was never started, though it has lost its tag
// (moby#45732).
func TestPruneKeepsUsed(t *testing.T) {
	s := stack.New(t)
	base := emptied(t, s)
	dir := t.TempDir()
	for _, text := range []string{"1", "2"} {
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+base+"\nRUN echo "+text+" > /which\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Cale("build", "-q", "-t", "moving", dir).OK(t)
		if text == "1" {
			s.Cale("create", "--name", "user", "moving", "cat", "/which").OK(t)
		}
	}
	s.Cale("builder", "prune", "-af").OK(t)
	for _, args := range [][]string{{"image", "prune", "-f"}, {"image", "prune", "-af"}} {
		s.Cale(args...).OK(t)
		if out := s.Cale("start", "-a", "user").OK(t); out != "1\n" {
			t.Errorf("after %v it says %q", args, out)
		}
	}
	s.Cale("rm", "user").OK(t)
}

// TestWhy: what holds an image and its parts.
func TestWhy(t *testing.T) {
	s := stack.New(t)
	base := emptied(t, s)
	s.Cale("run", "-d", "--name", "user", base, "sleep", "1000").OK(t)
	layer := strings.TrimSpace(s.Cale("inspect", "-f", "{{index .RootFS.Layers 0}}", base).OK(t))
	for _, name := range []string{base, layer, strings.TrimPrefix(layer, "sha256:")[:12]} {
		out := s.Cale("image", "why", name).OK(t)
		for _, want := range []string{"tag ", base + ":latest", "container ", "user"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: without %q:\n%s", name, want, out)
			}
		}
	}
	var why struct {
		Kind    string
		Holders []struct {
			Kind, Name string
			Path       []string
		}
	}
	if err := json.Unmarshal([]byte(s.Cale("image", "why", "-f", "json", layer).OK(t)), &why); err != nil || why.Kind != "layer" || len(why.Holders) != 2 {
		t.Errorf("%+v, %v", why, err)
	}
	for _, h := range why.Holders {
		if h.Path[len(h.Path)-1] != layer {
			t.Errorf("%s %s: %v", h.Kind, h.Name, h.Path)
		}
	}
	s.Cale("image", "why", "nosuch").Exit(t, 1)
	s.Cale("rm", "-f", "user").OK(t)

	// What a build keeps, and what is on its way.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+base+"\nRUN echo 1 > /built\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Cale("build", "-q", "-t", "built", dir).OK(t)
	built := strings.Fields(s.Cale("inspect", "-f", "{{join .RootFS.Layers \" \"}}", "built").OK(t))
	s.Cale("rmi", "built").OK(t)
	if out := s.Cale("image", "why", built[len(built)-1]).OK(t); !strings.Contains(out, "build ") || strings.Contains(out, "tag ") {
		t.Errorf("held by a build:\n%s", out)
	}
	s.Cale("builder", "prune", "-af").OK(t)
	addr := strings.TrimSpace(s.Cale("registry", "-q", "--listen", "127.0.0.1:0").OK(t))
	blob := images.Blob{Data: []byte("uploaded")}
	if err := images.PushBlob(t.Context(), addr, "some/where", blob); err != nil {
		t.Fatal(err)
	}
	if out := s.Cale("image", "why", blob.Digest()).OK(t); !strings.Contains(out, "some/where that waits for its manifest") {
		t.Errorf("held by an upload:\n%s", out)
	}
	s.Cale("rmi", base).OK(t)
	s.Cale("image", "why", layer).Exit(t, 1)
}

// TestSystemCheck damages what is stored, and has it found and put right.
func TestSystemCheck(t *testing.T) {
	s := stack.New(t)
	base := emptied(t, s)
	check := func(code int, want []string, args ...string) {
		t.Helper()
		out := s.Cale(append([]string{"system", "check"}, args...)...).Exit(t, code).Stdout
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("without %q:\n%s", w, out)
			}
		}
	}
	s.Cale("create", "--name", "user", base, "cat", "/etc/passwd").OK(t)
	check(0, []string{"3 blobs, 1 layer, 1 image, 1 container\n", "Problems: 0"})

	layers, err := filepath.Glob(filepath.Join(s.Root, "layers", "sha256-*"))
	if err != nil || len(layers) != 1 {
		t.Fatal(layers, err)
	}
	passwd := filepath.Join(layers[0], "fs", "etc", "passwd")
	if err := os.Remove(passwd); err != nil {
		t.Fatal(err)
	}
	check(1, []string{"layer sha256:", "/etc/passwd: missing", "Problems: 1, repaired: 0"})
	// Not under a container that runs.
	s.Cale("run", "-d", "--name", "running", base, "sleep", "1000").OK(t)
	check(1, []string{"container running uses it: stop it first"}, "--repair")
	s.Cale("rm", "-f", "running").OK(t)
	check(0, []string{"unpacked again", "Problems: 1, repaired: 1"}, "--repair")
	check(0, []string{"Problems: 0"})
	s.Cale("start", "-a", "user").OK(t)

	// A layer that is gone.
	if err := os.RemoveAll(layers[0]); err != nil {
		t.Fatal(err)
	}
	s.KillEngine() // which knows of the layer
	check(1, []string{"container user: its layer sha256:"})
	check(0, []string{"unpacked again"}, "--repair")
	s.Cale("start", "-a", "user").OK(t)

	// Each blob in turn: gone by a repair, back by a pull.
	blobs, err := filepath.Glob(filepath.Join(s.Root, "blobs", "sha256", "*"))
	if err != nil || len(blobs) != 3 {
		t.Fatal(blobs, err)
	}
	slices.Sort(blobs)
	for _, blob := range blobs {
		raw, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 1
		if err := os.WriteFile(blob, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("blob sha256:%s: ", filepath.Base(blob))
		check(1, []string{name})
		s.Cale("system", "check", "--repair")
		check(1, []string{"pull it again, or remove it"})
		s.Cale("pull", "-q", base).OK(t)
		check(0, []string{"Problems: 0"})
	}
	s.Cale("start", "-a", "user").OK(t)

	// An image that isn't whole can be removed by its name.
	for _, blob := range blobs {
		if err := os.Remove(blob); err != nil {
			t.Fatal(err)
		}
	}
	s.Cale("rm", "user").OK(t)
	s.Cale("rmi", base).OK(t)
	check(0, []string{"0 images", "Problems: 0"})
}
