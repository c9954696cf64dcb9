package layer

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"cale/image"
)

// TestEngineAndBuilderAtOnce: two processes that make the same layer both
// succeed, whichever is first, and one tree of it is left.
func TestEngineAndBuilderAtOnce(t *testing.T) {
	l := openStore(t)
	temp := filepath.Join(filepath.Dir(l.dir), "temp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	shared, err := OpenShared(l.dir, temp)
	if err != nil {
		t.Fatal(err)
	}
	built, dones := 0, 0
	for i := range 200 {
		raw := archive(t, e{name: "a", data: string(rune('a'+i%26)) + string(rune('a'+i/26))})
		id := image.FromBytes(raw)
		var wg sync.WaitGroup
		for _, s := range []*Store{l, shared} {
			wg.Go(func() {
				if n, err := s.Unpack(t.Context(), bytes.NewReader(raw), "", id); err != nil || n != 2 {
					t.Errorf("unpack: %d, %v", n, err)
				}
			})
		}
		if i%2 == 0 { // and it was built, too
			built++
			name := string(rune('a'+i%26)) + string(rune('a'+i/26))
			path := shared.Built(name)
			if err := os.MkdirAll(filepath.Join(path, "fs"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(path, "fs", "a"), []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				done, err := shared.Exchange(path, id, 2)
				if err != nil {
					t.Errorf("exchange: %v", err)
				}
				if referred := shared.Referred(path) == id; referred != done {
					t.Errorf("exchange: done %v, a link %v", done, referred)
				}
				if done {
					dones++
				}
			})
		}
		wg.Wait()
		for _, s := range []*Store{l, shared} {
			if !s.Has(id) {
				t.Fatal("the layer is not there")
			}
		}
		if st, err := os.Lstat(l.path(id)); err != nil || !st.IsDir() {
			t.Fatalf("the layer is %v, %v", st, err)
		}
	}
	if n := left(t, l); len(n) != 200+built {
		t.Errorf("%d names left, not %d", len(n), 200+built)
	}
	if n, err := os.ReadDir(temp); err != nil || len(n) > 0 {
		t.Errorf("left: %v, %v", n, err)
	}
	t.Logf("the built tree became the layer %d times of %d", dones, built)
}
