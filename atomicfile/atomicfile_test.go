package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	// What a killed writer left behind is in nobody's way.
	if err := os.WriteFile(path+Suffix, []byte("a longer half"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, durable := range []bool{false, true} {
		if err := Write(path, []byte("new"), 0o600, durable); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "new" {
			t.Errorf("durable %v: %q, %v", durable, b, err)
		}
		if _, err := os.Stat(path + Suffix); !os.IsNotExist(err) {
			t.Errorf("durable %v: the temporary file is still there: %v", durable, err)
		}
	}
}

func TestWriteThatFailsLeavesWhatWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "taken")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), 0o600, false); err == nil {
		t.Fatal("a directory was replaced by a file")
	}
	if _, err := os.Stat(path + Suffix); !os.IsNotExist(err) {
		t.Errorf("the temporary file is still there: %v", err)
	}
}
