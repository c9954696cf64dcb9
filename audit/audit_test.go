package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Two processes write the same file and turn it over: every line is whole and in one of the files, as long as files are
// kept, and no file is larger than it may be.
func TestTurnedOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	const each = 60
	var wg sync.WaitGroup
	for w := range 2 {
		a, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		a.most = 8 << 10
		wg.Go(func() {
			for i := range each {
				a.Record(Entry{API: "docker", Action: "test", Object: fmt.Sprintf("%d-%d", w, i), Outcome: "done"})
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	files, _ := filepath.Glob(path + "*")
	if len(files) < 2 {
		t.Errorf("only %v after many lines", files)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > 8<<10 {
			t.Errorf("%s has %d bytes", f, len(raw))
		}
		for line := range bytes.Lines(raw) {
			var e Entry
			if err := json.Unmarshal(line, &e); err != nil || seen[e.Object] {
				t.Fatalf("%s: %q: %v", f, line, err)
			}
			seen[e.Object] = true
		}
	}
	if len(seen) != 2*each {
		t.Errorf("%d lines of %d", len(seen), 2*each)
	}
}

func TestFilesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.most = 1
	for range 20 {
		a.Record(Entry{Action: "test", Outcome: strings.Repeat("x", 10)})
	}
	if files, _ := filepath.Glob(path + "*"); len(files) != mostFiles+1 {
		t.Errorf("%v", files)
	}
	if err := os.Remove(path); err != nil { // whoever turns the machine's logs
		t.Fatal(err)
	}
	a.Record(Entry{Action: "after"})
	if raw, err := os.ReadFile(path); err != nil || !strings.Contains(string(raw), "after") {
		t.Errorf("after the file was taken away: %q, %v", raw, err)
	}
}

// A client's words are bounded: a line stays a line.
func TestLongWords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	e := Entry{Object: strings.Repeat("o", 1<<20), Command: []string{"sh", strings.Repeat("c", 1<<20), "more"}}
	e.End(fmt.Errorf("%s", strings.Repeat("e", 1<<20)))
	a.Record(e)
	if raw, err := os.ReadFile(path); err != nil || len(raw) > 20<<10 || bytes.Count(raw, []byte("\n")) != 1 {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
	a.Record(Entry{Command: make([]string, 1<<20)})
	if raw, err := os.ReadFile(path); err != nil || len(raw) > 40<<10 || bytes.Count(raw, []byte("\n")) != 2 {
		t.Errorf("many empty words: %d bytes, %v", len(raw), err)
	}
}

// A log that could not be opened anew, as there was no descriptor or no directory, goes on when it can.
func TestOpenedAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "audit.log")
	a, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		a.Record(Entry{Action: "lost"})
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a.Record(Entry{Action: "after"})
	if raw, err := os.ReadFile(path); err != nil || !strings.Contains(string(raw), "after") {
		t.Errorf("%q, %v", raw, err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
