package cni

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVersions(t *testing.T) {
	for text, want := range map[string]string{
		`{"name": "n", "type": "x"}`:                                                                                   "0.2.0",
		`{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "x"}]}`:                                             "1.0.0",
		`{"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.1.0"], "name": "n", "plugins": [{"type": "x"}]}`:          "1.1.0",
		`{"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.1.0", "1.2.0"], "name": "n", "plugins": [{"type": "x"}]}`: "1.1.0",
		`{"cniVersion": "1.2.0", "cniVersions": ["0.4.0", "1.0.0", "0.3.1"], "name": "n", "plugins": [{"type": "x"}]}`: "1.0.0",
		`{"cniVersions": ["0.3.1"], "name": "n", "plugins": [{"type": "x"}]}`:                                          "0.3.1",
	} {
		l, err := parse([]byte(text), t.TempDir())
		if err != nil || l.Version != want || len(l.Plugins) != 1 {
			t.Errorf("%s: %+v, %v, want version %s", text, l, err, want)
		}
	}
}

// Plug-ins may come from the folder beside the configuration that has the network's name.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("net/20-b.conf", `{"type": "b"}`)
	write("net/10-a.conf", `{"type": "a"}`)
	write("net/readme.txt", `{"type": "text"}`)
	write("other/10-c.conf", `{"type": "c"}`)
	for text, want := range map[string]string{
		`{"name": "net", "plugins": [{"type": "x"}]}`: "x a b",
		`{"name": "net"}`: "a b",
		`{"name": "net", "plugins": [{"type": "x"}], "loadOnlyInlinedPlugins": true}`:   "x",
		`{"name": "net", "plugins": [{"type": "x"}], "loadOnlyInlinedPlugins": "true"}`: "x",
		`{"name": "net", "type": "x"}`:                 "x",
		`{"name": "none", "plugins": [{"type": "x"}]}`: "x",
	} {
		l, err := parse([]byte(text), dir)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var types []string
		for _, raw := range l.Plugins {
			p, err := l.look(raw)
			if err != nil {
				t.Error(err)
			}
			types = append(types, p.Type)
		}
		if got := strings.Join(types, " "); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	write("net/30-bad.conf", `{"type": "../bad"}`)
	for _, text := range []string{`{"name": "net", "plugins": [{"type": "x"}]}`, `{"name": "none", "loadOnlyInlinedPlugins": true}`, `{"name": "..", "plugins": [{"type": "x"}]}`} {
		if l, err := parse([]byte(text), dir); err == nil {
			t.Errorf("%s: %+v", text, l)
		}
	}
}
