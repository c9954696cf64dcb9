package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Many files are watched by one descriptor: a user gets 128 of its kind, all programs together.
func TestWatchManyFiles(t *testing.T) {
	dir := t.TempDir()
	var files []string
	var changed []<-chan struct{}
	var ends []func()
	for i := range 300 {
		f := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		ch, end, err := watchFiles(f, dir)
		if err != nil {
			t.Fatal(err)
		}
		files, changed, ends = append(files, f), append(changed, ch), append(ends, end)
	}
	told := func(i int) bool {
		select {
		case <-changed[i]:
			return true
		case <-time.After(5 * time.Second):
			return false
		}
	}
	for i, f := range files {
		if err := os.Truncate(f, int64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range files {
		if !told(i) {
			t.Fatalf("a change of file %d is not told", i)
		}
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if !told(0) {
		t.Error("that a file is gone is not told")
	}
	if _, _, err := watchFiles(files[1], files[0]); err == nil {
		t.Error("a file that isn't there is watched")
	}
	for _, end := range ends {
		end()
		end()
	}
	if notify.file != nil || len(notify.by) != 0 {
		t.Errorf("left: %v, %d watches", notify.file, len(notify.by))
	}
}
