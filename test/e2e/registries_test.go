package e2e

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"cale/test/images"
	"cale/test/stack"
)

func setting(t *testing.T, s *stack.Stack, name, text string) {
	t.Helper()
	name = filepath.Join(s.Config, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRegistrySettings: mirrors and short names count for whatever pulls, as soon as they are written.
func TestRegistrySettings(t *testing.T) {
	s := stack.New(t)
	setting(t, s, "certs.d/registry.invalid/hosts.toml", "[host.'http://"+s.Registry+"']\ncapabilities = ['pull', 'resolve']\n")
	setting(t, s, "certs.d/broken.invalid/hosts.toml", "host = 'x'\n")
	setting(t, s, "registries.conf", "unqualified-search-registries = ['registry.invalid']\n[aliases]\nbox = 'registry.invalid/busybox'\n")
	for _, name := range []string{"registry.invalid/busybox", "busybox", "box"} {
		if out := s.Cale("run", "--rm", name, "echo", "hello").OK(t); out != "hello\n" {
			t.Errorf("%s: %q", name, out)
		}
		if out := s.Cale("images", "--format", "{{.Repository}}").OK(t); !strings.Contains(out, "registry.invalid/busybox\n") {
			t.Errorf("%q", out)
		}
		s.Cale("rmi", name).OK(t)
	}
	r := s.Cale("pull", "broken.invalid/busybox").Exit(t, 1)
	if !strings.Contains(r.Stderr, "hosts.toml: ") {
		t.Errorf("%q", r.Stderr)
	}
}

// TestPullAllTags brings every tag of a repository, and says so as Docker does.
func TestPullAllTags(t *testing.T) {
	newest(t, func(t *testing.T, s *stack.Stack, client string) {
		at := otherRegistry(t, "", "")
		for _, name := range []string{"box:1", "box:2", "other:1"} {
			if err := images.Push(t.Context(), at, name); err != nil {
				t.Fatal(err)
			}
		}
		out := s.Do("", client, "pull", "-a", at+"/box").OK(t)
		for _, want := range []string{"1: Pulling from box\n", "2: Pulling from box\n", "Status: Downloaded newer image for " + at + "/box\n"} {
			if strings.Count(out, want) != 1 {
				t.Errorf("without one %q:\n%s", want, out)
			}
		}
		if out := s.Cale("images", "--format", "{{.Tag}}", at+"/box").OK(t); sorted(out) != sorted("1\n2\n") {
			t.Errorf("tags: %s", out)
		}
		if out := s.Do("", client, "pull", "-a", at+"/box").OK(t); !strings.Contains(out, "Status: Image is up to date for "+at+"/box\n") {
			t.Errorf("again: %s", out)
		}
		s.Do("", client, "pull", "-a", at+"/none").Exit(t, 1)
		s.Do("", client, "pull", "-a", at+"/box:1").Exit(t, 1)
	})
}

// TestManifest puts images of two platforms together, pushes them as one, and has them found by platform.
func TestManifest(t *testing.T) {
	s := stack.New(t)
	at := otherRegistry(t, "", "")
	for _, p := range []string{"amd64", "arm64"} {
		img, err := images.New(images.Spec{Platform: images.Platform{OS: "linux", Architecture: p}, Layers: [][]images.File{{{Name: "arch", Data: []byte(p)}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := img.Push(t.Context(), at, p+":1"); err != nil {
			t.Fatal(err)
		}
	}
	list, amd, arm := at+"/both:1", at+"/amd64:1", at+"/arm64:1"
	s.Cale("manifest", "create", list, amd).Exit(t, 1) // not here yet
	for _, name := range []string{amd, arm} {
		s.Cale("pull", "-q", name).OK(t)
	}
	if out := s.Cale("manifest", "create", list, amd).OK(t); out != "Created manifest list "+list+"\n" {
		t.Errorf("%q", out)
	}
	s.Cale("manifest", "create", list, arm).Exit(t, 1)
	s.Cale("manifest", "create", "-a", list, arm).OK(t)
	s.Cale("manifest", "annotate", "--variant", "v8", list, arm).OK(t)
	s.Cale("manifest", "annotate", "--variant", "v8", list, s.Busybox()).Exit(t, 1)
	inspect := s.Cale("manifest", "inspect", list).OK(t)
	for _, want := range []string{`"architecture": "amd64"`, `"architecture": "arm64"`, `"variant": "v8"`} {
		if strings.Count(inspect, want) != 1 {
			t.Errorf("without one %s:\n%s", want, inspect)
		}
	}
	digest := s.Cale("manifest", "push", "-p", list).OK(t)
	s.Cale("manifest", "rm", list).Exit(t, 1) // gone
	if again := s.Cale("manifest", "inspect", list).OK(t); again != inspect {
		t.Errorf("the registry has\n%s\nnot\n%s", again, inspect)
	}
	s.Cale("rmi", "-f", amd, arm).OK(t)
	for _, p := range []string{"amd64", "arm64"} {
		s.Cale("pull", "-q", "--platform", "linux/"+p, list).OK(t)
		out := s.Cale("inspect", "-f", "{{.Architecture}} {{index .RepoDigests 0}}", "--platform", "linux/"+p, list)
		if out.Code == 0 && !strings.HasPrefix(out.Stdout, p+" ") || out.Code == 0 && !strings.Contains(out.Stdout, strings.TrimSpace(digest)) {
			t.Errorf("%s: %s", p, out.Stdout)
		}
	}
	// At once, from nothing: kept whole.
	s.Cale("rmi", "-f", list).OK(t)
	s.Cale("image", "prune", "-af").OK(t)
	s.Cale("pull", "-q", "--platform", "all", list).OK(t)
	// It goes whole to another registry.
	other := otherRegistry(t, "", "")
	s.Cale("tag", list, other+"/both:1").OK(t)
	s.Cale("push", "-q", other+"/both:1").OK(t)
	if out := s.Cale("manifest", "inspect", other+"/both:1").OK(t); out != inspect {
		t.Errorf("the other registry has\n%s", out)
	}
	if out := s.Cale("manifest", "inspect", amd).OK(t); !strings.Contains(out, `"layers"`) {
		t.Errorf("of an image: %s", out)
	}
	s.Cale("manifest", "inspect", at+"/none:1").Exit(t, 1)
}

// TestProxy: registries are spoken to by way of the proxy that the engine's environment names, but those that it
// excepts, and the loopback.
func TestProxy(t *testing.T) {
	s := stack.New(t)
	at := otherRegistry(t, "", "")
	if err := images.Push(t.Context(), at, "box:1"); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[string]int{}
	to, err := url.Parse("http://" + at)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(to)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.Host]++
		mu.Unlock()
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	for _, host := range []string{"far.invalid", "excepted.invalid"} {
		setting(t, s, "certs.d/"+host+"/hosts.toml", "server = 'http://"+host+"'\n")
	}
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("NO_PROXY", "excepted.invalid")
	s.KillEngine() // the next one has this environment
	s.Cale("pull", "-q", "far.invalid/box:1").OK(t)
	s.Cale("pull", "-q", at+"/box:1").OK(t)
	s.Cale("pull", "-q", "excepted.invalid/box:1").Exit(t, 1)
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 1 || asked["far.invalid"] == 0 {
		t.Errorf("the proxy was asked for %v", asked)
	}
	s.Cale("rmi", at+"/box:1").OK(t)
}
