package server

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"cale/test/images"
)

// TestAliases: a registry that clients know by several hosts has one set of tags, each called in the store as it was
// pushed or is there already. A host that a client makes up gets into no name.
func TestAliases(t *testing.T) {
	f := newFixture(t, Options{Aliases: []string{"localhost:1", "[::1]:1"}})
	put := func(host, at string, img *images.Image) {
		t.Helper()
		f.push("foo:blobs", img)
		req, err := http.NewRequest("PUT", f.srv.URL+"/v2/foo/manifests/"+at, bytes.NewReader(img.Manifest.Data))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Content-Type", img.Manifest.MediaType)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusCreated {
			t.Errorf("%s %s: %s", host, at, res.Status)
		}
	}
	names := func(want ...string) {
		t.Helper()
		all, err := f.store.Names()
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, n := range all {
			if !strings.HasSuffix(n.Name, ":blobs") {
				have = append(have, n.Name)
			}
		}
		slices.Sort(want)
		if !slices.Equal(have, want) {
			t.Errorf("the store has %q, not %q", have, want)
		}
	}
	one, two := small(t, "1"), small(t, "2")
	put("localhost:1", "a", one)
	put("docker.io", "b", one)
	put("[::1]:1", "c", one)
	put(f.addr, "d", one)
	names("localhost:1/foo:a", f.addr+"/foo:b", "[::1]:1/foo:c", f.addr+"/foo:d")
	put(f.addr, "a", two) // the same tag, by another way
	put("localhost:1", "d", two)
	names("localhost:1/foo:a", f.addr+"/foo:b", "[::1]:1/foo:c", f.addr+"/foo:d")
	for _, tag := range []string{"a", "d"} {
		if h, _ := f.do("HEAD", "/v2/foo/manifests/"+tag, nil, nil, 200); h.Get("Docker-Content-Digest") != two.Manifest.Digest() {
			t.Errorf("%s is %v", tag, h)
		}
	}
	f.do("DELETE", "/v2/foo/manifests/c", nil, nil, 202)
	f.do("GET", "/v2/foo/manifests/c", nil, nil, 404)
	f.do("DELETE", "/v2/foo/manifests/"+two.Manifest.Digest(), nil, nil, 202)
	names(f.addr + "/foo:b")
}

// TestIfNoneMatch: who has content already is told so, and gets no body.
func TestIfNoneMatch(t *testing.T) {
	f := newFixture(t, Options{})
	img := small(t, "x")
	f.push("foo:1", img)
	for path, digest := range map[string]string{"manifests/1": img.Manifest.Digest(), "blobs/" + img.Layers[0].Digest(): img.Layers[0].Digest()} {
		for _, method := range []string{"GET", "HEAD"} {
			for header, want := range map[string]int{
				`"` + digest + `"`:              304,
				`W/"x", W/"` + digest + `", *x`: 304,
				"*":                             304,
				`"` + img.Config.Digest() + `"`: 200,
				digest:                          200, // no entity tag
			} {
				if h, _ := f.do(method, "/v2/foo/"+path, http.Header{"If-None-Match": {header}}, nil, want); h.Get("ETag") != `"`+digest+`"` {
					t.Errorf("%s %s: tag %s", method, path, h.Get("ETag"))
				}
			}
		}
	}
}
