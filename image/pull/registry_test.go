package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cale/registry/client"
)

// TestPullBusyRegistry: 429 with Retry-After on token, manifests and blobs is waited for and not counted as failure
// (containerd#10447).
func TestPullBusyRegistry(t *testing.T) {
	s := newSetup(t)
	s.reg.add("1", testImage(t, 2, 200_000, "gzip"))
	var mu sync.Mutex
	asked := map[string]int{}
	s.reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		asked[r.Method+r.URL.Path]++
		if asked[r.Method+r.URL.Path] <= 3 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		if r.URL.Path == "/token" {
			json.NewEncoder(w).Encode(map[string]string{"token": "t"})
			return true
		}
		if r.Header.Get("Authorization") != "Bearer t" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(2)
	mu.Lock()
	defer mu.Unlock()
	for what, n := range asked {
		if n < 4 {
			t.Errorf("%s was asked for %d times", what, n)
		}
	}
}

// TestPullTokenExpires: tokens that end in the middle of a blob, and connections with them, are renewed and the blob
// goes on where it stood (moby#33558, buildx#324).
func TestPullTokenExpires(t *testing.T) {
	s := newSetup(t)
	img := testImage(t, 2, 2_000_000, "gzip")
	s.reg.add("1", img)
	var mu sync.Mutex
	token, served := 0, map[string]int{}
	s.reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/token" {
			token++
			json.NewEncoder(w).Encode(map[string]any{"token": strconv.Itoa(token), "expires_in": 300})
			return true
		}
		if token == 0 || r.Header.Get("Authorization") != "Bearer "+strconv.Itoa(token) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		at := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		for _, l := range img.Layers {
			if l.Digest() != at {
				continue
			}
			if served[at]++; served[at] > 3 {
				return false
			}
			token++ // what was handed out is worth nothing any more
			from := 0
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			w.Header().Set("Content-Length", strconv.Itoa(len(l.Data)-from))
			if from > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(l.Data)-1, len(l.Data)))
				w.WriteHeader(http.StatusPartialContent)
			}
			w.Write(l.Data[from:min(from+500_000, len(l.Data))])
			return true
		}
		return false
	}
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(2)
}

// TestPullDenied: a registry that never likes a token is not asked for ever.
func TestPullDenied(t *testing.T) {
	s := newSetup(t)
	s.reg.add("1", testImage(t, 1, 1000, "gzip"))
	var mu sync.Mutex
	n := 0
	s.reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if n++; r.URL.Path == "/token" {
			json.NewEncoder(w).Encode(map[string]any{"token": strconv.Itoa(n)})
			return true
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, r.Host))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	if _, err := s.pull(); !errors.Is(err, client.ErrDenied) {
		t.Errorf("got %v", err)
	}
	if n > 20 {
		t.Errorf("%d requests", n)
	}
	s.absent()
}

// TestPullRedirects: blobs may lie elsewhere; a loop of redirects ends.
func TestPullRedirects(t *testing.T) {
	s := newSetup(t)
	img := testImage(t, 1, 100_000, "gzip")
	s.reg.add("1", img)
	loop := true
	s.reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/elsewhere/") || !strings.HasSuffix(r.URL.Path, img.Layers[0].Digest()) {
			return false
		}
		to := "/elsewhere/" + img.Layers[0].Digest()
		if loop {
			to = r.URL.Path
		}
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		return true
	}
	if _, err := s.pull(); err == nil || !strings.Contains(err.Error(), "redirects too often") {
		t.Errorf("got %v", err)
	}
	s.absent()
	loop = false
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(1)
}

// TestPullDrip: a registry that sends little at a time is waited for as long as it sends, and left at once when the
// pull is cancelled.
func TestPullDrip(t *testing.T) {
	s := newSetup(t)
	img := testImage(t, 1, 4000, "none")
	s.reg.add("1", img)
	s.reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, img.Layers[0].Digest()) {
			return false
		}
		data := img.Layers[0].Data
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		for at := 0; at < len(data); at += 100 {
			w.Write(data[at:min(at+100, len(data))])
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
		return true
	}
	if _, err := s.pull(); err != nil {
		t.Fatal(err)
	}
	s.whole(1)

	s = newSetup(t)
	s.reg.add("1", img)
	s.reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, img.Layers[0].Digest()) {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(img.Layers[0].Data)))
		w.Write(img.Layers[0].Data[:200])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.Progress = func(e Event) {
		if e.Status == "Downloading" {
			cancel()
		}
	}
	if _, err := Pull(ctx, s.Options); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	s.absent()
}

// What one repository has is not to be had under another's name (moby's TestImagePullStoredDigestForOtherRepo): a digest
// that is here is taken without asking only for the repository that it came from.
func TestPullDigestOfOtherRepository(t *testing.T) {
	s := newSetup(t)
	img := testImage(t, 1, 1000, "gzip")
	s.reg.add("1", img)
	d, err := s.pull()
	if err != nil {
		t.Fatal(err)
	}
	s.reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		http.NotFound(w, r)
		return true
	}
	s.Ref = s.ref.WithDigest(d.Digest)
	if _, err := s.pull(); err != nil {
		t.Errorf("a digest of the same repository: %v", err)
	}
	s.Ref.Path = "test/other"
	if _, err := s.pull(); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("a digest of another repository: %v", err)
	}
}
