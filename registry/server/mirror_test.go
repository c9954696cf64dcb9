package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cale/image"
	"cale/image/pull"
	"cale/registry/client"

	"golang.org/x/crypto/bcrypt"
)

// mirrorOf is a registry with a store of its own that mirrors another one, and counts what that is asked for.
func mirrorOf(t *testing.T, up *fixture) (m *fixture, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	inner := up.srv.Config.Handler
	up.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			asked.Add(1)
		}
		inner.ServeHTTP(w, r)
	})
	return newFixture(t, Options{Upstream: client.New(client.Options{}), UpstreamDomain: up.addr}), asked
}

// A mirror fetches what it lacks once, gives out what it has, also when the other registry is gone, and names it.
func TestMirror(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("unpacking layers needs root")
	}
	up := newFixture(t, Options{})
	img := small(t, strings.Repeat("content", 100_000))
	up.push("some/image:1", img)
	m, asked := mirrorOf(t, up)
	ref := image.Reference{Domain: m.addr, Path: "some/image", Tag: "1"}
	from := func() error {
		_, err := pull.Pull(m.ctx(), pull.Options{Store: openStore(t), Client: client.New(client.Options{}), Ref: ref})
		return err
	}
	if _, err := m.store.Resolve(ref.String()); err == nil {
		t.Error("the name is there before the image")
	}
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if err := from(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := asked.Load(); n != 2 {
		t.Errorf("the other registry was asked for %d blobs", n)
	}
	if d, err := m.store.Resolve(ref.String()); err != nil || d.Digest.String() != img.Manifest.Digest() {
		t.Errorf("the name stands for %v (%v)", d, err)
	}
	if _, err := m.store.GC(m.ctx()); err != nil {
		t.Fatal(err)
	}
	if problems, _, err := m.store.Check(m.ctx()); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	m.do("GET", "/v2/some/image/tags/list", nil, nil, 200)
	m.do("GET", "/v2/some/image/manifests/none", nil, nil, 404)
	m.do("GET", "/v2/some/image/blobs/"+image.FromBytes([]byte("other")).String(), nil, nil, 404)
	m.do("PUT", "/v2/some/image/manifests/2", http.Header{"Content-Type": {img.Manifest.MediaType}}, img.Manifest.Data, 405)
	m.do("POST", "/v2/some/image/blobs/uploads/", nil, nil, 405)

	// A tag that moves is followed.
	next := small(t, "another")
	up.push("some/image:1", next)
	if err := from(); err != nil {
		t.Fatal(err)
	}
	if d, err := m.store.Resolve(ref.String()); err != nil || d.Digest.String() != next.Manifest.Digest() {
		t.Errorf("the name stands for %v (%v)", d, err)
	}
	up.srv.Close()
	if err := from(); err != nil {
		t.Errorf("without the other registry: %v", err)
	}
	m.do("GET", "/v2/some/image/manifests/unheard", nil, nil, 502)
	if _, raw := m.do("GET", "/v2/some/image/tags/list", nil, nil, 200); !strings.Contains(string(raw), `"1"`) {
		t.Errorf("tags: %s", raw)
	}
}

// What a mirror began to fetch it goes on with, and wrong content it never has.
func TestMirrorBroken(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("unpacking layers needs root")
	}
	up := newFixture(t, Options{})
	img := small(t, strings.Repeat("x", 3_000_000)+string(make([]byte, 100)))
	up.push("image:1", img)
	inner := up.srv.Config.Handler
	cut := true
	up.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cut && strings.HasSuffix(r.URL.Path, img.Layers[0].Digest()) {
			bad := make([]byte, len(img.Layers[0].Data))
			w.Write(bad)
			return
		}
		inner.ServeHTTP(w, r)
	})
	m := newFixture(t, Options{Upstream: client.New(client.Options{}), UpstreamDomain: up.addr})
	ref := image.Reference{Domain: m.addr, Path: "image", Tag: "1"}
	from := func() error {
		_, err := pull.Pull(m.ctx(), pull.Options{Store: openStore(t), Client: client.New(client.Options{}), Ref: ref})
		return err
	}
	m.do("GET", "/v2/image/manifests/1", nil, nil, 200)
	if res, err := http.Get(m.srv.URL + "/v2/image/blobs/" + img.Layers[0].Digest()); err == nil {
		raw, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode == 200 && err == nil {
			t.Errorf("%d wrong bytes were given out as if they were right", len(raw))
		}
	}
	if _, err := m.store.Stat(image.FromBytes(img.Layers[0].Data)); err == nil {
		t.Error("the wrong blob is there")
	}
	cut = false
	if err := from(); err != nil {
		t.Fatal(err)
	}
}

// Who asks while a blob is on its way gets it as it comes, and it goes on coming when the first one leaves.
func TestMirrorShared(t *testing.T) {
	up := newFixture(t, Options{})
	img := small(t, strings.Repeat("x", 1000))
	data := img.Layers[0].Data
	up.push("image:1", img)
	inner := up.srv.Config.Handler
	go1, go2 := make(chan struct{}), make(chan struct{})
	var asked atomic.Int32
	up.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, img.Layers[0].Digest()) {
			inner.ServeHTTP(w, r)
			return
		}
		asked.Add(1)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:10])
		w.(http.Flusher).Flush()
		<-go1
		w.Write(data[10:20])
		w.(http.Flusher).Flush()
		<-go2
		w.Write(data[20:])
	})
	m := newFixture(t, Options{Upstream: client.New(client.Options{}), UpstreamDomain: up.addr})
	m.do("GET", "/v2/image/manifests/1", nil, nil, 200)
	ask := func() (io.ReadCloser, context.CancelFunc) {
		ctx, cancel := context.WithCancel(m.ctx())
		req, _ := http.NewRequestWithContext(ctx, "GET", m.srv.URL+"/v2/image/blobs/"+img.Layers[0].Digest(), nil)
		res, err := http.DefaultClient.Do(req)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		t.Cleanup(func() { cancel(); res.Body.Close() })
		return res.Body, cancel
	}
	expect := func(r io.Reader, from, to int) {
		t.Helper()
		b := make([]byte, to-from)
		if _, err := io.ReadFull(r, b); err != nil || !bytes.Equal(b, data[from:to]) {
			t.Fatalf("%d to %d: %q, %v", from, to, b, err)
		}
	}
	first, leave := ask()
	expect(first, 0, 10)
	second, _ := ask()
	expect(second, 0, 10) // before anything else comes
	leave()
	close(go1)
	expect(second, 10, 20)
	third, _ := ask()
	expect(third, 0, 20)
	close(go2)
	for _, r := range []io.Reader{second, third} {
		expect(r, 20, len(data))
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%d bytes more, %v", n, err)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("the other registry was asked %d times", asked.Load())
	}
	m.do("GET", "/v2/image/blobs/"+img.Layers[0].Digest(), http.Header{"Range": {"bytes=5-9"}}, nil, 206) // it is here now
}

func TestUsers(t *testing.T) {
	hash := func(password string) string {
		h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return string(h)
	}
	path := t.TempDir() + "/htpasswd"
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# users\njo:" + hash("secret:ü") + "\n\nann:" + hash("other") + "\n")
	u, err := OpenUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, Options{Password: u.Check})
	get := func(user, password string, want int) {
		t.Helper()
		req, _ := http.NewRequest("GET", f.srv.URL+"/v2/", nil)
		if user != "" {
			req.SetBasicAuth(user, password)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want || want == 401 && !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: %s, want %d", user, res.Status, want)
		}
	}
	for range 2 { // the second time from memory
		get("", "", 401)
		get("jo", "secret:ü", 200)
		get("jo", "other", 401)
		get("ann", "other", 200)
		get("nobody", "other", 401)
		get("jo", "", 401)
	}
	write("ann:" + hash("other, and longer") + "\n")
	get("jo", "secret:ü", 401)
	get("ann", "other", 401)
	get("ann", "other, and longer", 200)
	os.Remove(path)
	get("ann", "other, and longer", 401)
	for _, bad := range []string{"jo\n", "jo:plain\n", ":" + hash("x") + "\n", "jo:$apr1$abc$def\n"} {
		write(bad)
		if _, err := OpenUsers(path); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
