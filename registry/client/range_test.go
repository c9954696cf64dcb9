package client

import (
	"errors"
	"io"
	"net/http"
	"testing"

	"cale/image"
)

func TestBlobRange(t *testing.T) {
	data := []byte("0123456789")
	desc := image.Descriptor{Digest: image.FromBytes(data), Size: 10}
	for _, tt := range []struct {
		name, header, body string
		status             int
		want               error
	}{
		{"right", "bytes 2-5/10", "2345", 206, nil},
		{"size not told", "bytes 2-5/*", "2345", 206, nil},
		{"another size", "bytes 2-5/11", "2345", 206, ErrNoRange},
		{"another range", "bytes 2-6/10", "23456", 206, ErrNoRange},
		{"no header", "", "2345", 206, ErrNoRange},
		{"whole", "", "0123456789", 200, ErrNoRange},
		{"too long", "bytes 2-5/10", "23456789", 206, ErrLong},
		{"too short", "bytes 2-5/10", "2", 206, io.ErrUnexpectedEOF},
		{"refused", "", "", 416, ErrNoRange},
		{"missing", "", "", 404, ErrNotFound},
	} {
		c, ref, _ := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Range"); got != "bytes=2-5" {
				t.Errorf("%s: asked for %q", tt.name, got)
			}
			if tt.header != "" {
				w.Header().Set("Content-Range", tt.header)
			}
			w.WriteHeader(tt.status)
			w.(http.Flusher).Flush() // no length is told
			io.WriteString(w, tt.body)
		})
		body, err := c.BlobRange(testContext(t), ref, desc, 2, 4)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(body)
			body.Close()
		}
		if !errors.Is(err, tt.want) || err == nil && string(got) != "2345" {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
	c := New(Options{})
	for _, r := range [][2]int64{{-1, 2}, {0, 11}, {9, 2}, {1, 0}, {1, 1<<63 - 1}} {
		if _, err := c.BlobRange(testContext(t), image.Reference{}, desc, r[0], r[1]); err == nil {
			t.Errorf("%v was asked for", r)
		}
	}
}

func TestSpare(t *testing.T) {
	ref := image.Reference{Domain: "spare.invalid"}
	var all []func()
	for range maxSpare {
		release, ok := Spare(ref)
		if !ok {
			t.Fatal("refused")
		}
		all = append(all, release)
	}
	if _, ok := Spare(ref); ok {
		t.Error("no bound")
	}
	if release, ok := Spare(image.Reference{Domain: "other.invalid"}); !ok {
		t.Error("one registry holds up another")
	} else {
		release()
	}
	all[0]()
	all[0]()
	release, ok := Spare(ref)
	if !ok {
		t.Error("refused although there is room")
	}
	all = append(all[1:], release)
	if _, ok := Spare(ref); ok {
		t.Error("one was given back twice")
	}
	for _, release := range all {
		release()
	}
	if len(spare.open) != 0 {
		t.Errorf("%v", spare.open)
	}
}
