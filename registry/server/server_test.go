package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
	"cale/test/images"
)

type fixture struct {
	*testing.T
	store *store.Store
	srv   *httptest.Server
	addr  string
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cale-registry-")
	if err != nil {
		dir = t.TempDir()
	}
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); os.RemoveAll(dir) })
	return s
}

func newFixture(t *testing.T, o Options) *fixture {
	t.Helper()
	s := openStore(t)
	srv := httptest.NewUnstartedServer(nil)
	o.Domain = srv.Listener.Addr().String()
	srv.Config.Handler = New(s, o)
	srv.Start()
	t.Cleanup(srv.Close)
	return &fixture{t, s, srv, o.Domain}
}

// do sends a request and checks the status.
func (f *fixture) do(method, path string, header http.Header, body []byte, want int) (http.Header, []byte) {
	f.Helper()
	if !strings.HasPrefix(path, "http") {
		path = f.srv.URL + path
	}
	req, err := http.NewRequest(method, path, bytes.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		f.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		f.Fatal(err)
	}
	if res.StatusCode != want {
		f.Fatalf("%s %s: %s, want %d: %s", method, path, res.Status, want, raw)
	}
	return res.Header, raw
}

func (f *fixture) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	f.Cleanup(cancel)
	return ctx
}

func (f *fixture) push(name string, img *images.Image) {
	f.Helper()
	if err := img.Push(f.ctx(), f.addr, name); err != nil {
		f.Fatal(err)
	}
}

func small(t *testing.T, content string) *images.Image {
	t.Helper()
	img, err := images.New(images.Spec{Layers: [][]images.File{{{Name: "file", Data: []byte(content)}}}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestPushPull(t *testing.T) {
	f := newFixture(t, Options{})
	img := small(t, "x")
	f.push("foo/bar:1", img)
	if _, err := f.store.Resolve(f.addr + "/foo/bar:1"); err != nil {
		t.Error(err)
	}
	h, raw := f.do("GET", "/v2/foo/bar/manifests/1", nil, nil, 200)
	if !bytes.Equal(raw, img.Manifest.Data) || h.Get("Content-Type") != images.TypeManifest || h.Get("Docker-Content-Digest") != img.Manifest.Digest() {
		t.Errorf("%v", h)
	}
	f.do("HEAD", "/v2/foo/bar/manifests/"+img.Manifest.Digest(), nil, nil, 200)
	_, raw = f.do("GET", "/v2/foo/bar/blobs/"+img.Layers[0].Digest(), http.Header{"Range": {"bytes=2-4"}}, nil, 206)
	if !bytes.Equal(raw, img.Layers[0].Data[2:5]) {
		t.Errorf("range: %q", raw)
	}
	// Not from elsewhere.
	f.do("GET", "/v2/other/blobs/"+img.Layers[0].Digest(), nil, nil, 404)
	f.do("GET", "/v2/other/manifests/"+img.Manifest.Digest(), nil, nil, 404)
	f.do("GET", "/v2/other/tags/list", nil, nil, 404)
	f.do("GET", "/v2/foo/bar/manifests/2", nil, nil, 404)
	f.do("GET", "/v2/", nil, nil, 200)
	f.do("GET", "/v2/foo/bar", nil, nil, 404)
	f.do("GET", "/v2/Foo/manifests/1", nil, nil, 400)
	f.do("GET", "/v2/foo/blobs/sha256:zz", nil, nil, 400)
	f.do("POST", "/v2/foo/bar/manifests/1", nil, nil, 405)
}

func TestDockerIONamesAreRead(t *testing.T) {
	f := newFixture(t, Options{})
	img := small(t, "hub")
	f.push("tmp:1", img)
	d, err := f.store.Resolve(f.addr + "/tmp:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.SetName("docker.io/library/busybox:latest", d); err != nil {
		t.Fatal(err)
	}
	f.do("GET", "/v2/library/busybox/manifests/latest", nil, nil, 200)
	f.do("GET", "/v2/library/busybox/blobs/"+img.Layers[0].Digest(), nil, nil, 200)
	_, raw := f.do("GET", "/v2/_catalog", nil, nil, 200)
	if string(raw) != `{"repositories":["library/busybox","tmp"]}` {
		t.Errorf("%s", raw)
	}
	// Not removed from here.
	f.do("DELETE", "/v2/library/busybox/manifests/latest", nil, nil, 404)
	f.do("DELETE", "/v2/library/busybox/manifests/"+img.Manifest.Digest(), nil, nil, 405)
}

func (f *fixture) upload(repo string) string {
	f.Helper()
	h, _ := f.do("POST", "/v2/"+repo+"/blobs/uploads/", nil, nil, 202)
	return h.Get("Location")
}

func TestUploads(t *testing.T) {
	f := newFixture(t, Options{MaxBlob: 1000})
	data := []byte("0123456789")
	digest := image.FromBytes(data).String()
	at := f.upload("a")
	h, _ := f.do("PATCH", at, http.Header{"Content-Range": {"0-3"}}, data[:4], 202)
	if h.Get("Range") != "0-3" {
		t.Errorf("Range %q", h.Get("Range"))
	}
	h, _ = f.do("PATCH", at, http.Header{"Content-Range": {"5-6"}}, data[5:7], 416)
	if h.Get("Range") != "0-3" {
		t.Errorf("Range %q after a wrong chunk", h.Get("Range"))
	}
	f.do("PATCH", at, http.Header{"Content-Range": {"4-9"}}, data[4:6], 400)
	f.do("PATCH", at, http.Header{"Content-Range": {"x"}}, data[4:6], 400)
	f.do("PATCH", at, http.Header{"Content-Range": {"4-5"}}, data[4:6], 202)
	h, _ = f.do("GET", at, nil, nil, 204)
	if h.Get("Range") != "0-5" || h.Get("Location") == "" {
		t.Errorf("%v", h)
	}
	// A session belongs to its repository.
	f.do("GET", strings.Replace(at, "/v2/a/", "/v2/b/", 1), nil, nil, 404)
	f.do("PUT", at, nil, data[6:], 400) // no digest
	h, _ = f.do("PUT", at+"?digest="+digest, http.Header{"Content-Range": {"6-9"}}, data[6:], 201)
	_, raw := f.do("GET", h.Get("Location"), nil, nil, 200)
	if string(raw) != string(data) {
		t.Errorf("%q", raw)
	}
	f.do("GET", at, nil, nil, 404)
	// Again: it is there already.
	at = f.upload("a")
	f.do("PUT", at+"?digest="+digest, nil, data, 201)
	// Wrong digest.
	at = f.upload("a")
	f.do("PUT", at+"?digest="+digest, nil, data[1:], 400)
	f.do("GET", at, nil, nil, 404)
	// Too large, announced and not.
	at = f.upload("a")
	f.do("PATCH", at, nil, make([]byte, 1001), 413)
	f.do("GET", at, nil, nil, 204)
	f.do("PATCH", at, nil, make([]byte, 600), 202)
	f.do("PATCH", at, nil, make([]byte, 600), 413)
	f.do("DELETE", at, nil, nil, 204)
	f.do("DELETE", at, nil, nil, 404)
	// In one request.
	f.do("POST", "/v2/a/blobs/uploads/?digest="+digest, nil, data, 201)
	// Mount.
	f.do("POST", "/v2/b/blobs/uploads/?mount="+digest+"&from=a", nil, nil, 201)
	f.do("GET", "/v2/b/blobs/"+digest, nil, nil, 200)
	f.do("POST", "/v2/c/blobs/uploads/?mount="+digest+"&from=nowhere", nil, nil, 202)
	f.do("GET", "/v2/c/blobs/"+digest, nil, nil, 404)
	f.do("DELETE", "/v2/b/blobs/"+digest, nil, nil, 202)
	f.do("GET", "/v2/b/blobs/"+digest, nil, nil, 404)
	f.do("GET", "/v2/a/blobs/"+digest, nil, nil, 200)
	f.do("GET", "/v2/a/blobs/uploads/../../../etc/passwd", nil, nil, 404)
}

// An upload outlives the registry, and one that breaks keeps what arrived.
func TestUploadSurvives(t *testing.T) {
	f := newFixture(t, Options{})
	at := f.upload("a")
	f.do("PATCH", at, nil, []byte("01234"), 202)
	f.srv.Config.Handler = New(f.store, Options{Domain: f.addr})
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 10\r\n\r\n567", at, f.addr)
	conn.Close()
	deadline := time.Now().Add(30 * time.Second)
	for {
		res, err := http.Get(f.srv.URL + at)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == 204 && res.Header.Get("Range") == "0-7" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s, Range %q", res.Status, res.Header.Get("Range"))
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.do("PUT", at+"?digest="+image.FromBytes([]byte("0123456789")).String(), nil, []byte("89"), 201)
}

func TestManifests(t *testing.T) {
	f := newFixture(t, Options{})
	one, two := small(t, "1"), small(t, "2")
	// A manifest before its blobs.
	f.do("PUT", "/v2/a/manifests/1", http.Header{"Content-Type": {images.TypeManifest}}, one.Manifest.Data, 404)
	f.push("a:1", one)
	// Its blobs are in another repository only.
	f.do("PUT", "/v2/b/manifests/1", http.Header{"Content-Type": {images.TypeManifest}}, one.Manifest.Data, 404)
	// The tag moves; what it named stays, by digest.
	f.push("a:1", two)
	f.do("GET", "/v2/a/manifests/"+one.Manifest.Digest(), nil, nil, 200)
	f.do("GET", "/v2/a/blobs/"+one.Layers[0].Digest(), nil, nil, 200)
	if names, _ := f.store.Names(); len(names) != 1 {
		t.Errorf("names %v", names)
	}
	// Not even a collection takes it; and deleting it does.
	f.collect()
	f.do("GET", "/v2/a/manifests/"+one.Manifest.Digest(), nil, nil, 200)
	f.do("DELETE", "/v2/a/blobs/"+one.Layers[0].Digest(), nil, nil, 405)
	f.do("DELETE", "/v2/a/manifests/"+one.Manifest.Digest(), nil, nil, 202)
	f.do("DELETE", "/v2/a/manifests/"+one.Manifest.Digest(), nil, nil, 404)
	f.do("GET", "/v2/a/manifests/"+one.Manifest.Digest(), nil, nil, 404)
	f.do("GET", "/v2/a/blobs/"+two.Layers[0].Digest(), nil, nil, 200)
	// A tag is deleted; its manifest stays until it is deleted.
	f.do("DELETE", "/v2/a/manifests/1", nil, nil, 202)
	f.do("DELETE", "/v2/a/manifests/1", nil, nil, 404)
	f.do("GET", "/v2/a/manifests/"+two.Manifest.Digest(), nil, nil, 200)
	f.do("DELETE", "/v2/a/manifests/"+two.Manifest.Digest(), nil, nil, 202)
	// Bad ones.
	h := http.Header{"Content-Type": {images.TypeManifest}}
	f.do("PUT", "/v2/a/manifests/1", h, []byte("{"), 400)
	f.do("PUT", "/v2/a/manifests/1", h, nil, 400)
	f.do("PUT", "/v2/a/manifests/1", h, make([]byte, image.MaxManifestSize+1), 413)
	f.do("PUT", "/v2/a/manifests/.x", h, two.Manifest.Data, 400)
	f.do("PUT", "/v2/a/manifests/"+one.Manifest.Digest(), h, two.Manifest.Data, 400)
	f.do("PUT", "/v2/a/manifests/1", http.Header{"Content-Type": {"application/json"}}, two.Manifest.Data, 400)
	f.do("PUT", "/v2/a/manifests/1", http.Header{"Content-Type": {images.TypeIndex}}, two.Manifest.Data, 400)
}

func (f *fixture) collect() {
	f.Helper()
	if _, err := f.store.GC(f.ctx()); err != nil {
		f.Fatal(err)
	}
}

func TestIndex(t *testing.T) {
	f := newFixture(t, Options{})
	one, two := small(t, "1"), small(t, "2")
	ix, err := images.Index(one, two)
	if err != nil {
		t.Fatal(err)
	}
	f.do("PUT", "/v2/a/manifests/1", http.Header{"Content-Type": {images.TypeIndex}}, ix.Data, 404)
	if err := images.PushIndex(f.ctx(), f.addr, "a:1", one, two); err != nil {
		t.Fatal(err)
	}
	// The name holds all of it: no lease is left over.
	if l := f.store.Leases(); len(l) != 0 {
		t.Errorf("leases %v", l)
	}
	f.collect()
	f.do("GET", "/v2/a/manifests/"+one.Manifest.Digest(), nil, nil, 200)
	f.do("DELETE", "/v2/a/manifests/"+one.Manifest.Digest(), nil, nil, 405)
	f.do("DELETE", "/v2/a/manifests/"+ix.Digest(), nil, nil, 202)
	f.do("GET", "/v2/a/manifests/"+one.Manifest.Digest(), nil, nil, 200)
	f.do("GET", "/v2/a/manifests/1", nil, nil, 404)
}

func TestReferrers(t *testing.T) {
	f := newFixture(t, Options{})
	img := small(t, "1")
	f.push("a:1", img)
	empty := images.Blob{MediaType: image.MediaTypeEmpty, Data: []byte("{}")}
	if err := images.PushBlob(f.ctx(), f.addr, "a", empty); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"x/one", "x/two"} {
		m, _ := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": images.TypeManifest, "artifactType": kind, "config": empty.Descriptor(),
			"layers": []any{empty.Descriptor()}, "subject": img.Manifest.Descriptor(), "annotations": map[string]string{"k": kind},
		})
		h, _ := f.do("PUT", "/v2/a/manifests/"+image.FromBytes(m).String(), http.Header{"Content-Type": {images.TypeManifest}}, m, 201)
		if h.Get("OCI-Subject") != img.Manifest.Digest() {
			t.Errorf("OCI-Subject %q", h.Get("OCI-Subject"))
		}
	}
	var list struct{ Manifests []image.Descriptor }
	_, raw := f.do("GET", "/v2/a/referrers/"+img.Manifest.Digest(), nil, nil, 200)
	if err := json.Unmarshal(raw, &list); err != nil || len(list.Manifests) != 2 {
		t.Errorf("%s", raw)
	}
	h, raw := f.do("GET", "/v2/a/referrers/"+img.Manifest.Digest()+"?artifactType=x/two", nil, nil, 200)
	if err := json.Unmarshal(raw, &list); err != nil || len(list.Manifests) != 1 || list.Manifests[0].Annotations["k"] != "x/two" || h.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("%s", raw)
	}
	_, raw = f.do("GET", "/v2/nowhere/referrers/"+img.Manifest.Digest(), nil, nil, 200)
	if !bytes.Contains(raw, []byte(`"manifests":[]`)) {
		t.Errorf("%s", raw)
	}
}

func TestTagsAndCatalogPages(t *testing.T) {
	f := newFixture(t, Options{})
	img := small(t, "1")
	for _, tag := range []string{"c", "a", "b"} {
		f.push("r:"+tag, img)
	}
	f.push("q/r:x", img)
	c := client.New(client.Options{})
	ref := image.Reference{Domain: f.addr, Path: "r", Tag: "x"}
	if tags, err := c.Tags(f.ctx(), ref); err != nil || fmt.Sprint(tags) != "[a b c]" {
		t.Errorf("%q, %v", tags, err)
	}
	h, raw := f.do("GET", "/v2/r/tags/list?n=2", nil, nil, 200)
	if string(raw) != `{"name":"r","tags":["a","b"]}` || h.Get("Link") != `</v2/r/tags/list?last=b&n=2>; rel="next"` {
		t.Errorf("%s, %q", raw, h.Get("Link"))
	}
	h, raw = f.do("GET", "/v2/r/tags/list?n=2&last=b", nil, nil, 200)
	if string(raw) != `{"name":"r","tags":["c"]}` || h.Get("Link") != "" {
		t.Errorf("%s, %q", raw, h.Get("Link"))
	}
	f.do("GET", "/v2/r/tags/list?n=-1", nil, nil, 400)
	_, raw = f.do("GET", "/v2/_catalog?n=1", nil, nil, 200)
	if string(raw) != `{"repositories":["q/r"]}` {
		t.Errorf("%s", raw)
	}
}

func TestReadOnly(t *testing.T) {
	f := newFixture(t, Options{ReadOnly: true})
	f.do("POST", "/v2/a/blobs/uploads/", nil, nil, 405)
	f.do("PUT", "/v2/a/manifests/1", nil, nil, 405)
	f.do("DELETE", "/v2/a/manifests/1", nil, nil, 405)
	f.do("GET", "/v2/a/manifests/1", nil, nil, 404)
}

// Blobs wait for their manifest, whatever is collected meanwhile.
func TestCollectionDuringPush(t *testing.T) {
	f := newFixture(t, Options{})
	img := small(t, "1")
	for _, b := range []images.Blob{img.Config, img.Layers[0]} {
		if err := images.PushBlob(f.ctx(), f.addr, "a", b); err != nil {
			t.Fatal(err)
		}
		f.collect()
	}
	if err := images.PushManifest(f.ctx(), f.addr, "a", "1", img.Manifest); err != nil {
		t.Fatal(err)
	}
}
