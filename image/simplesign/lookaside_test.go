package simplesign

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/image"
)

func TestLookaside(t *testing.T) {
	dir := t.TempDir()
	digest := image.FromBytes([]byte("manifest"))
	at := "team/app@sha256=" + digest.Encoded()
	for name, text := range map[string]string{
		"one/" + at + "/signature-1": "first", "one/" + at + "/signature-2": "second", "one/" + at + "/signature-4": "after a gap",
		"two/" + at + "/signature-1": "of the wildcard",
		"own/10.yaml":                "default-docker:\n  sigstore: file://" + dir + "/none\ndocker:\n  registry.test:5000/team:\n    lookaside: file://" + dir + "/one\n    lookaside-staging: file:///elsewhere\n",
		"other/10.yaml":              "docker:\n  registry.test:5000:\n    lookaside: file:///never\n  \"*.wild.test\":\n    sigstore: file://" + dir + "/two\n",
		"bad/10.yaml":                "docker: [",
		"odd/10.yaml":                "default-docker:\n  lookaside: ftp://x\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	folders := []string{dir + "/own", dir + "/other", dir + "/missing"}
	get := func(domain string, folders ...string) (string, error) {
		list, err := find(t.Context(), folders, image.Reference{Domain: domain, Path: "team/app", Tag: "1"}, digest)
		var all []string
		for _, s := range list {
			all = append(all, string(s))
		}
		return strings.Join(all, ","), err
	}
	for domain, want := range map[string]string{"registry.test:5000": "first,second", "a.wild.test": "of the wildcard", "else.test": ""} {
		if got, err := get(domain, folders...); err != nil || got != want {
			t.Errorf("%s: %q, %v", domain, got, err)
		}
	}
	for _, f := range []string{"bad", "odd"} {
		if _, err := get("x.test", dir+"/"+f); err == nil {
			t.Errorf("%s was taken", f)
		}
	}

	down := false
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		http.FileServer(http.Dir(dir+"/one")).ServeHTTP(w, r)
	}))
	defer web.Close()
	os.Mkdir(dir+"/web", 0o755)
	os.WriteFile(dir+"/web/x.yaml", []byte("default-docker:\n  lookaside: "+web.URL+"\n"), 0o644)
	if got, err := get("x.test", dir+"/web"); err != nil || got != "first,second" {
		t.Errorf("%q, %v", got, err)
	}
	down = true
	if _, err := get("x.test", dir+"/web"); err == nil {
		t.Error("a server that fails has no signatures")
	}
}
