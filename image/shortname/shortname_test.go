package shortname

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func load(t *testing.T, text string) (*Names, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, File), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(dir)
}

const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestNames(t *testing.T) {
	none, err := Load(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	other, err := load(t, `
unqualified-search-registries = ["registry.example.com:5000"]
short-name-mode = "enforcing"
[aliases]
"fedora" = "registry.fedoraproject.org/fedora"
"my/busybox" = "docker.io/library/busybox"
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		n               *Names
		in, full, brief string
	}{
		{none, "busybox", "docker.io/library/busybox:latest", "busybox:latest"},
		{none, "a.b/c:1", "a.b/c:1", "a.b/c:1"},
		{other, "busybox", "registry.example.com:5000/busybox:latest", "registry.example.com:5000/busybox:latest"},
		{other, "a/b:1", "registry.example.com:5000/a/b:1", "registry.example.com:5000/a/b:1"},
		{other, "fedora:40", "registry.fedoraproject.org/fedora:40", "registry.fedoraproject.org/fedora:40"},
		{other, "fedora" + digest, "registry.fedoraproject.org/fedora" + digest, "registry.fedoraproject.org/fedora" + digest},
		{other, "my/busybox", "docker.io/library/busybox:latest", "docker.io/library/busybox:latest"},
		{other, "docker.io/busybox", "docker.io/library/busybox:latest", "docker.io/library/busybox:latest"},
		{other, "localhost/x", "localhost/x:latest", "localhost/x:latest"},
	} {
		r, err := c.n.Parse(c.in)
		if err != nil || r.String() != c.full {
			t.Errorf("%s: %v, %v", c.in, r, err)
		}
		if got := c.n.Familiar(r); got != c.brief {
			t.Errorf("%s: %s", c.in, got)
		}
	}
	if _, err := other.Parse("A"); err == nil || !strings.Contains(err.Error(), `"A"`) {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"unqualified-search-registries = ['a.b', 'c.d']": "list of one registry",
		"unqualified-search-registries = ['a b']":        "no registry",
		"unqualified-search-registries = ['ab']":         "no registry",
		"unqualified-search-registries = 'a.b'":          "list of one registry",
		"[aliases]\n'a.b/c' = 'c.d/e'":                   "no short name",
		"[aliases]\na = 'b'":                             "no repository",
		"[aliases]\na = 'b.c/d:1'":                       "no repository",
		"[aliases]\na = 1":                               "no repository",
		"aliases = 1":                                    "no table",
		"[[registry]]\nprefix = 'a'":                     "certs.d",
		"x":                                              "line 1",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzNames(f *testing.F) {
	f.Add("unqualified-search-registries = ['a.b']\n[aliases]\nx='c.d/e'", "x:1")
	f.Fuzz(func(t *testing.T, text, name string) {
		n, err := parse([]byte(text))
		if err != nil {
			return
		}
		r, err := n.Parse(name)
		if err != nil {
			return
		}
		if back, err := n.Parse(n.Familiar(r)); err != nil || back != r {
			t.Errorf("%q became %v, then %v, %v", name, r, back, err)
		}
	})
}
