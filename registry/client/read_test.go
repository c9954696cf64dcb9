package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"cale/image"
)

// Truncation, Range, wrong lengths (containerd#3974).
func TestBlob(t *testing.T) {
	blob := []byte("0123456789")
	d := image.Descriptor{Digest: image.FromBytes(blob), Size: 10}
	for _, tt := range []struct {
		name   string
		offset int64
		script http.HandlerFunc
		want   string
		err    error
	}{
		{"whole", 0, func(w http.ResponseWriter, r *http.Request) { w.Write(blob) }, "0123456789", nil},
		{"range", 4, func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
		}, "456789", nil},
		{"range ignored", 4, func(w http.ResponseWriter, r *http.Request) { w.Write(blob) }, "456789", nil},
		{"range unsatisfiable", 4, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			w.Write(blob)
		}, "456789", nil},
		{"other range", 4, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", "bytes 3-9/10")
				w.WriteHeader(http.StatusPartialContent)
				w.Write(blob[3:])
				return
			}
			w.Write(blob)
		}, "456789", nil},
		{"end", 10, func(w http.ResponseWriter, r *http.Request) { w.Write(blob) }, "", nil},
		{"truncated", 0, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.Write(blob[:6])
		}, "012345", io.ErrUnexpectedEOF},
		{"truncated chunked", 0, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			w.Write(blob[:6])
		}, "012345", io.ErrUnexpectedEOF},
		{"longer, announced", 0, func(w http.ResponseWriter, r *http.Request) {
			w.Write(append(blob, 'x'))
		}, "", ErrDigest},
		{"longer, chunked", 0, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			w.Write(bytes.Repeat(blob, 1000))
		}, "0123456789", ErrLong},
		{"unknown", 0, http.NotFound, "", ErrNotFound},
		{"partial unasked", 0, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
		}, "", errors.New("any")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, ref, _ := start(t, Options{}, tt.script)
			body, _, err := c.Blob(testContext(t), ref, d, tt.offset)
			var raw []byte
			if err == nil {
				raw, err = io.ReadAll(body)
				body.Close()
			}
			if string(raw) != tt.want || (err == nil) != (tt.err == nil) {
				t.Errorf("got %q, %v", raw, err)
			}
			if tt.err != nil && tt.err.Error() != "any" && !errors.Is(err, tt.err) {
				t.Errorf("error %v is not %v", err, tt.err)
			}
		})
	}
}

func TestManifestEnforced(t *testing.T) {
	good := image.Descriptor{MediaType: image.MediaTypeIndex, Digest: image.FromBytes([]byte(index)), Size: int64(len(index))}
	for name, change := range map[string]func(*image.Descriptor){
		"digest": func(d *image.Descriptor) { d.Digest = image.FromBytes([]byte("other")) },
		"short":  func(d *image.Descriptor) { d.Size-- },
		"long":   func(d *image.Descriptor) { d.Size++ },
		"type":   func(d *image.Descriptor) { d.MediaType = image.MediaTypeManifest },
	} {
		c, ref, _ := start(t, Options{}, serveIndex)
		if _, _, err := c.Manifest(testContext(t), ref, good); err != nil {
			t.Fatal(err)
		}
		d := good
		change(&d)
		if _, _, err := c.Manifest(testContext(t), ref, d); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// A manifest without end.
	c, ref, _ := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", image.MediaTypeIndex)
		for range 6 << 10 {
			w.Write(bytes.Repeat([]byte(" "), 1<<10))
		}
	})
	if _, _, err := c.Manifest(testContext(t), ref, image.Descriptor{}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Error(err)
	}
	c, ref, _ = start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", image.MediaTypeDockerSchema1Signed)
		io.WriteString(w, "{}")
	})
	if _, err := c.Resolve(testContext(t), ref); err == nil || !strings.Contains(err.Error(), "schema 1") {
		t.Error(err)
	}
}

func TestErrorsAreOneLine(t *testing.T) {
	c, ref, s := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\n\u001b[31m unknown%s"}]}`, strings.Repeat("!", 10000))
	})
	_, err := c.Resolve(testContext(t), ref)
	if err == nil || strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 600 || !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if !strings.HasPrefix(err.Error(), "manifest for "+ref.Familiar()+" not found: manifest unknown: ") {
		t.Errorf("%v", err)
	}
	s.Close()
	begin := time.Now()
	_, err = c.Resolve(testContext(t), ref)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "Head ") {
		t.Errorf("%v", err)
	}
	if time.Since(begin) > 10*time.Second {
		t.Error("a refused connection is retried for long")
	}
}

func TestTags(t *testing.T) {
	c, ref, _ := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.FormValue("last") {
		case "":
			w.Header().Set("Link", `</v2/a/b/tags/list?n=1000&last=b>; rel="next"`)
			io.WriteString(w, `{"name":"a/b","tags":["a","b"]}`)
		case "b":
			io.WriteString(w, `{"name":"a/b","tags":["c"]}`)
		}
	})
	tags, err := c.Tags(testContext(t), ref)
	if err != nil || fmt.Sprint(tags) != "[a b c]" {
		t.Errorf("%q, %v", tags, err)
	}
}

// Pages that never end, or lead back to themselves.
func TestTagsLoop(t *testing.T) {
	for name, page := range map[string]func(n int) (link, body string){
		"same":  func(int) (string, string) { return "/v2/a/b/tags/list?n=1000", `{"tags":["a"]}` },
		"empty": func(n int) (string, string) { return fmt.Sprintf("/v2/a/b/tags/list?last=%d", n), `{"tags":[]}` },
		"many": func(n int) (string, string) {
			return fmt.Sprintf("/v2/a/b/tags/list?last=%d", n), `{"tags":["a"` + strings.Repeat(`,"a"`, 60_000) + `]}`
		},
	} {
		n := 0
		c, ref, _ := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			n++
			link, body := page(n)
			w.Header().Set("Link", "<"+link+`>; rel="next"`)
			io.WriteString(w, body)
		})
		if tags, err := c.Tags(testContext(t), ref); err == nil || n > 20 {
			t.Errorf("%s: %d tags after %d pages", name, len(tags), n)
		}
	}
}

// A body that stays silent ends as a transfer that can be taken up again.
func TestSilence(t *testing.T) {
	c, ref, _ := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.Write([]byte("12345"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	c.idle = 100 * time.Millisecond
	d := image.Descriptor{Digest: image.FromBytes(nil), Size: 10}
	body, _, err := c.Blob(testContext(t), ref, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if raw, err := io.ReadAll(body); string(raw) != "12345" || !errors.Is(err, ErrUnavailable) {
		t.Errorf("%q, %v", raw, err)
	}
}

func TestCancel(t *testing.T) {
	began := make(chan struct{})
	c, ref, _ := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.(http.Flusher).Flush()
		close(began)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(testContext(t))
	d := image.Descriptor{Digest: image.FromBytes(nil), Size: 10}
	body, _, err := c.Blob(ctx, ref, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	go func() { <-began; cancel() }()
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
