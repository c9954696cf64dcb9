package instance

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestBelow(t *testing.T) {
	for asked, want := range map[string]string{
		"/cale-build": "/cale-build", "/cale-build/slow": "/cale-build/slow", "slow": "/cale-build/slow", "a/../b": "/cale-build/b",
		"/": "", "/cale": "", "/cale-build-2": "", "../cale": "", "/cale-build/../x": "", "x.slice:": "",
	} {
		got, err := Below("/cale-build", asked)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", asked, got, err)
		}
	}
}

func TestLock(t *testing.T) {
	run := t.TempDir()
	if err := os.Mkdir(filepath.Join(run, "build"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := Lock(run)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(run); !errors.Is(err, ErrAlive) {
		t.Errorf("locked twice: %v", err)
	}
	if err := EndOrphans(run); err != nil {
		t.Errorf("nothing to end: %v", err)
	}
	f.Close()
	if f, err = Lock(run); err != nil {
		t.Fatal(err)
	}
	f.Close()
}
