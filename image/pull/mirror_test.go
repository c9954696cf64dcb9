package pull

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cale/registry/client"
	"cale/registry/hosts"
)

// What a mirror gets wrong, the registry itself is asked for.
func TestPullBadMirror(t *testing.T) {
	img := testImage(t, 2, 3<<20, "gzip")
	target := img.Layers[1]
	for name, spoil := range map[string]func(data []byte) []byte{
		"wrong in the middle":  func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
		"wrong from the start": func(data []byte) []byte { return bytes.Repeat([]byte("x"), len(data)) },
		"too short":            func(data []byte) []byte { return data[:len(data)/2] },
		"too long":             func(data []byte) []byte { return append(data, 'x') },
	} {
		for _, parts := range []int{1, 4} {
			t.Run(fmt.Sprint(name, parts), func(t *testing.T) {
				s := newSetup(t).small()
				s.reg.add("1", img)
				mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !strings.HasSuffix(r.URL.Path, target.Digest()) {
						s.reg.ServeHTTP(w, r)
						return
					}
					http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(spoil(bytes.Clone(target.Data))))
				}))
				t.Cleanup(mirror.Close)
				dir := t.TempDir()
				if err := os.Mkdir(filepath.Join(dir, s.ref.Domain), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, s.ref.Domain, "hosts.toml"), []byte("[host.'"+mirror.URL+"']\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				s.Client, s.Parts = client.New(client.Options{HostDirs: hosts.Dirs{dir}}), parts
				if _, err := s.pull(); err != nil {
					t.Fatal(err)
				}
				s.whole(2)
			})
		}
	}
}
