package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
