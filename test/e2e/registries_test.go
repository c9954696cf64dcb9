package e2e

import (
	"os"
	"path/filepath"
	"strings"
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
