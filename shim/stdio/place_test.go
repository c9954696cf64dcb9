package stdio

import (
	"os"
	"path/filepath"
	"testing"
)

// A shim that ends late must not take its successor's socket along: the next engine would find nobody there and end
// the container.
func TestPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := PlaceOf(path)
	next := path + ".next"
	if err := os.WriteFile(next, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	first.Remove()
	if got, err := os.ReadFile(path); string(got) != "second" {
		t.Fatalf("the successor's file is %q, %v", got, err)
	}
	PlaceOf(path).Remove()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Fatalf("its own file is still there: %v", err)
	}
	PlaceOf(path).Remove()
}
