package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cale/image"
	"cale/registry/hosts"
)

// start serves a script, and returns a client and a reference to it.
func start(t *testing.T, o Options, h http.HandlerFunc) (*Client, image.Reference, *httptest.Server) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c := New(o)
	c.unit = time.Millisecond
	return c, image.Reference{Domain: s.Listener.Addr().String(), Path: "a/b", Tag: "1"}, s
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

const index = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

func serveIndex(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", image.MediaTypeIndex)
	w.Header().Set("Docker-Content-Digest", image.FromBytes([]byte(index)).String())
	w.Header().Set("Content-Length", strconv.Itoa(len(index)))
	if r.Method != http.MethodHead {
		io.WriteString(w, index)
	}
}

// tokens is a token service that counts and remembers.
type tokens struct {
	mu     sync.Mutex
	n      int
	valid  string
	scopes []string
	users  []string
	life   int
}

func (k *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n++
	k.valid = fmt.Sprintf("token-%d", k.n)
	k.scopes = append(k.scopes, r.FormValue("scope"))
	user, pass, _ := r.BasicAuth()
	if r.Method == http.MethodPost {
		user, pass = r.FormValue("grant_type"), r.FormValue("refresh_token")
	}
	k.users = append(k.users, user+":"+pass)
	json.NewEncoder(w).Encode(map[string]any{"token": k.valid, "expires_in": k.life})
}

// ok checks a request's token, and asks for one if it is not good.
func (k *tokens) ok(w http.ResponseWriter, r *http.Request, realm string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.valid != "" && r.Header.Get("Authorization") == "Bearer "+k.valid {
		return true
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="reg, \"one\"",scope="repository:a/b:pull"`, realm))
	w.WriteHeader(http.StatusUnauthorized)
	return false
}

func TestResolve(t *testing.T) {
	c, ref, _ := start(t, Options{}, serveIndex)
	d, err := c.Resolve(testContext(t), ref)
	if err != nil {
		t.Fatal(err)
	}
	if d.Digest != image.FromBytes([]byte(index)) || d.Size != int64(len(index)) || d.MediaType != image.MediaTypeIndex {
		t.Errorf("got %+v", d)
	}
	// A registry whose HEAD says nothing.
	c, ref, _ = start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		io.WriteString(w, index) // sniffed as text/plain
	})
	if d, err = c.Resolve(testContext(t), ref); err != nil || d.Digest != image.FromBytes([]byte(index)) || d.MediaType != image.MediaTypeIndex {
		t.Errorf("without HEAD: %+v, %v", d, err)
	}
}

func TestBearer(t *testing.T) {
	k := &tokens{life: 300}
	var realm string
	c, ref, s := start(t, Options{Credentials: func(host string) (string, string) { return "joe", "secret" }}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			k.ServeHTTP(w, r)
		} else if k.ok(w, r, realm) {
			serveIndex(w, r)
		}
	})
	realm = s.URL + "/token?x=y"
	for range 3 {
		if _, err := c.Resolve(testContext(t), ref); err != nil {
			t.Fatal(err)
		}
	}
	if k.n != 1 || k.scopes[0] != "repository:a/b:pull" || k.users[0] != "joe:secret" {
		t.Errorf("tokens: %d, scopes %q, users %q", k.n, k.scopes, k.users)
	}
	// The registry forgets the token: another one is fetched.
	k.mu.Lock()
	k.valid = "other"
	k.mu.Unlock()
	if _, err := c.Resolve(testContext(t), ref); err != nil || k.n != 2 {
		t.Errorf("after expiry: %v, %d tokens", err, k.n)
	}
	// An identity token goes by OAuth 2.
	c = New(Options{Credentials: func(string) (string, string) { return "<token>", "idt" }})
	if _, err := c.Resolve(testContext(t), ref); err != nil || k.users[2] != "refresh_token:idt" {
		t.Errorf("identity token: %v, %q", err, k.users)
	}
}

func TestBasic(t *testing.T) {
	login := func(string) (string, string) { return "joe", "secret" }
	script := func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "joe" || p != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
			return
		}
		serveIndex(w, r)
	}
	c, ref, _ := start(t, Options{Credentials: login}, script)
	if _, err := c.Resolve(testContext(t), ref); err != nil {
		t.Error(err)
	}
	c, ref, _ = start(t, Options{}, script)
	_, err := c.Resolve(testContext(t), ref)
	want := "pull access denied for " + ref.Domain + "/a/b, repository does not exist or may require 'docker login': unauthorized: authentication required"
	if err == nil || err.Error() != want || !errors.Is(err, ErrDenied) {
		t.Errorf("anonymous: %v", err)
	}
}

// A registry may ask for patience anywhere (containerd#10447).
func TestRetryAfter(t *testing.T) {
	k := &tokens{life: 300}
	var realm string
	var mu sync.Mutex
	refused := map[string]int{}
	blob := []byte("some bytes")
	var got bytes.Buffer
	c, ref, s := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		refused[r.Method+r.URL.Path]++
		n := refused[r.Method+r.URL.Path]
		mu.Unlock()
		if n <= 3 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		switch {
		case r.URL.Path == "/token":
			k.ServeHTTP(w, r)
		case !k.ok(w, r, realm):
		case r.Method == http.MethodPost:
			w.Header().Set("Location", "/up")
			w.WriteHeader(http.StatusAccepted)
		case r.Method == http.MethodPut:
			got.Reset()
			io.Copy(&got, r.Body)
			w.WriteHeader(http.StatusCreated)
		case strings.Contains(r.URL.Path, "/blobs/"):
			w.Write(blob)
		default:
			serveIndex(w, r)
		}
	})
	realm = s.URL + "/token"
	ctx := testContext(t)
	if _, err := c.Resolve(ctx, ref); err != nil {
		t.Error(err)
	}
	d := image.Descriptor{Digest: image.FromBytes(blob), Size: int64(len(blob))}
	body, _, err := c.Blob(ctx, ref, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(body)
	body.Close()
	if err != nil || !bytes.Equal(raw, blob) {
		t.Errorf("blob %q, %v", raw, err)
	}
	if err := c.PushBlob(ctx, ref, d, bytes.NewReader(blob), nil); err != nil || got.String() != string(blob) {
		t.Errorf("push: %v, %q", err, got.String())
	}
}

func TestRetryAfterBounded(t *testing.T) {
	var n atomic.Int32
	c, ref, _ := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		w.Header().Set("Retry-After", "86400")
		w.WriteHeader(http.StatusTooManyRequests)
		io.WriteString(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`)
	})
	_, err := c.Resolve(testContext(t), ref)
	if !errors.Is(err, ErrTooManyTries) || n.Load() > 2 {
		t.Errorf("%v after %d requests", err, n.Load())
	}
	n.Store(0)
	c, ref, _ = start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if _, err := c.Resolve(testContext(t), ref); !errors.Is(err, ErrUnavailable) || n.Load() != maxTries {
		t.Errorf("%v after %d requests", err, n.Load())
	}
}

// Tokens run out while a blob is sent: the rest of a broken upload is taken, the
// PUT that ends it answers 401 (moby#33558).
func TestTokenExpiresDuringUpload(t *testing.T) {
	k := &tokens{life: 300}
	var realm string
	var got bytes.Buffer
	puts := 0
	c, ref, s := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			k.ServeHTTP(w, r)
			return
		}
		if r.Method == http.MethodPut {
			puts++
		}
		if r.Method == http.MethodPut && puts == 1 {
			panic(http.ErrAbortHandler)
		}
		if r.Method == http.MethodPut && puts == 2 {
			k.mu.Lock()
			k.valid = "expired"
			k.mu.Unlock()
		}
		if !k.ok(w, r, realm) {
			return
		}
		switch r.Method {
		case http.MethodPost:
			w.Header().Set("Location", "/up?state=1")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodGet:
			w.Header().Set("Range", "0-0")
			w.WriteHeader(http.StatusNoContent)
		case http.MethodPatch:
			io.Copy(&got, r.Body)
			w.Header().Set("Location", "/up?state=2")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPut:
			if r.FormValue("state") != "2" || r.FormValue("digest") == "" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.WriteHeader(http.StatusCreated)
		}
	})
	realm = s.URL + "/token"
	blob := bytes.Repeat([]byte("x"), 3<<20)
	d := image.Descriptor{Digest: image.FromBytes(blob), Size: int64(len(blob))}
	if err := c.PushBlob(testContext(t), ref, d, bytes.NewReader(blob), nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), blob) || k.n < 2 {
		t.Errorf("%d bytes, %d tokens", got.Len(), k.n)
	}
}

// An upload breaks in the middle and goes on where the registry stands.
func TestUploadResumes(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var got bytes.Buffer
	puts := 0
	c, ref, _ := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			w.Header().Set("Location", "/up")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPatch:
			if want := fmt.Sprintf("300000-%d", len(blob)-1); r.Header.Get("Content-Range") != want {
				t.Errorf("Content-Range %q, want %q", r.Header.Get("Content-Range"), want)
			}
			io.Copy(&got, r.Body)
			w.WriteHeader(http.StatusAccepted)
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodGet:
			w.Header().Set("Range", fmt.Sprintf("0-%d", got.Len()-1))
			w.WriteHeader(http.StatusNoContent)
		case http.MethodPut:
			if puts++; puts == 1 {
				io.CopyN(&got, r.Body, 300_000)
				panic(http.ErrAbortHandler)
			}
			io.Copy(&got, r.Body)
			w.WriteHeader(http.StatusCreated)
		}
	})
	d := image.Descriptor{Digest: image.FromBytes(blob), Size: int64(len(blob))}
	if err := c.PushBlob(testContext(t), ref, d, bytes.NewReader(blob), nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), blob) {
		t.Errorf("the registry has %d other bytes", got.Len())
	}
}

// Credentials must not follow a redirect or an upload to another host
// (CVE-2020-15157).
func TestCredentialsStayHome(t *testing.T) {
	blob := []byte("content")
	var leaked atomic.Value
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := r.Header.Get("Authorization") + r.Header.Get("Cookie"); v != "" {
			leaked.Store(v)
		}
		if r.Method == http.MethodGet {
			w.Write(blob)
			return
		}
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(other.Close)
	login := func(string) (string, string) { return "joe", "secret" }
	c, ref, _ := start(t, Options{Credentials: login}, func(w http.ResponseWriter, r *http.Request) {
		if u, _, _ := r.BasicAuth(); u != "joe" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodPost {
			w.Header().Set("Location", other.URL+"/up")
			w.WriteHeader(http.StatusAccepted)
			return
		}
		w.Header().Set("Set-Cookie", "session=1")
		http.Redirect(w, r, strings.Replace(other.URL, "http://", "http://evil:pass@", 1)+"/blob", http.StatusTemporaryRedirect)
	})
	d := image.Descriptor{Digest: image.FromBytes(blob), Size: int64(len(blob))}
	body, _, err := c.Blob(testContext(t), ref, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := io.ReadAll(body)
	body.Close()
	if string(raw) != string(blob) {
		t.Errorf("got %q", raw)
	}
	if err := c.PushBlob(testContext(t), ref, d, bytes.NewReader(blob), nil); err != nil {
		t.Error(err)
	}
	if v := leaked.Load(); v != nil {
		t.Errorf("the other host was sent %q", v)
	}
}

func TestRedirectLoop(t *testing.T) {
	c, ref, _ := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
	})
	if _, err := c.Resolve(testContext(t), ref); err == nil || !strings.Contains(err.Error(), "redirects too often") {
		t.Error(err)
	}
}

func TestChallenges(t *testing.T) {
	got := challenges([]string{`Basic realm="a", Bearer realm="https://x/?a=b,c", scope="s \"q\"",service=plain , Digest`})
	if len(got) != 3 || got[0].scheme != "bearer" || got[0].params["realm"] != "https://x/?a=b,c" ||
		got[0].params["scope"] != `s "q"` || got[0].params["service"] != "plain" || got[1].scheme != "basic" {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{"", ",", "=", `Bearer realm="`, "Bearer realm=", "Bearer =x", ",,= ,", `"`} {
		challenges([]string{bad}) // must end
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://x",service=y`)
	f.Fuzz(func(t *testing.T, s string) { challenges([]string{s}) })
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:1": true, "127.9.9.9": true, "[::1]:5000": true, "::1": true, "[::1]": true,
		"docker.io": false, "10.0.0.1:5000": false, "localhost.example.com": false, "127.0.0.1.example.com": false, "": false,
	} {
		if Loopback(host) != want {
			t.Errorf("%q", host)
		}
	}
}

// Without an answer to trust, TLS is asked of every host that is not here.
func TestTLSByDefault(t *testing.T) {
	c := New(Options{HostDirs: hosts.Dirs{}})
	for domain, want := range map[string]string{
		"docker.io": "https://registry-1.docker.io/v2/x", "ghcr.io": "https://ghcr.io/v2/x", "localhost:5000": "http://localhost:5000/v2/x",
	} {
		list, err := c.endpoints(domain)
		if err != nil || len(list) != 1 || list[0].url("x").String() != want || list[0].domain != domain {
			t.Errorf("%s: %v, %v", domain, list, err)
		}
	}
	u := &url.URL{Scheme: "https", Host: "a"}
	for location, ok := range map[string]bool{"/x": true, "http://a/x": true, "http://b/x": false, "https://b/x": true, "": false, "http://": false} {
		res := &http.Response{Header: http.Header{"Location": {location}}}
		if to, err := uploadAt(res, u); (err == nil) != ok || (err == nil && to.Scheme != "https") {
			t.Errorf("%q: %v, %v", location, to, err)
		}
	}
}
