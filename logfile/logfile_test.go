package logfile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2024, 5, 6, 7, 8, 9, 120000000, time.UTC)

func write(t *testing.T, w *Writer, s Stream, text string, at time.Time) {
	t.Helper()
	if err := w.Write(s, []byte(text), at); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, o Options) *Writer {
	t.Helper()
	w, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

type got struct {
	text      string
	stream    Stream
	continued bool
	time      time.Time
	attrs     map[string]string
}

func read(t *testing.T, o ReadOptions) []got {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var all []got
	err := Read(ctx, o, func(e *Entry) error {
		all = append(all, got{string(e.Line), e.Stream, e.Continued, e.Time, e.Attrs})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func joined(all []got) string {
	var b strings.Builder
	for _, g := range all {
		b.WriteString(g.text)
	}
	return b.String()
}

func TestFormats(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, Options{Path: path, Attrs: map[string]string{"b": "2", "a": "x\"y"}})
	write(t, w, Stdout, "one\ntwo <&> \x01\xff\u2028é\n", at)
	write(t, w, Stderr, "no newline", at)
	if err := w.End(Stderr, at); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	want := `{"log":"one\n","stream":"stdout","attrs":{"a":"x\"y","b":"2"},"time":"2024-05-06T07:08:09.12Z"}` + "\n" +
		`{"log":"two \u003c\u0026\u003e \u0001\ufffd\u2028é\n","stream":"stdout","attrs":{"a":"x\"y","b":"2"},"time":"2024-05-06T07:08:09.12Z"}` + "\n" +
		`{"log":"no newline","stream":"stderr","attrs":{"a":"x\"y","b":"2"},"time":"2024-05-06T07:08:09.12Z"}` + "\n"
	if string(b) != want {
		t.Errorf("json-file:\n%s\nwant:\n%s", b, want)
	}
	all := read(t, ReadOptions{Path: path, Stdout: true, Stderr: true, Tail: -1})
	if len(all) != 3 || all[2].stream != Stderr || all[0].attrs["a"] != `x"y` || !all[0].time.Equal(at) {
		t.Errorf("read back: %+v", all)
	}

	path = filepath.Join(t.TempDir(), "cri")
	w = open(t, Options{Path: path, Format: CRI})
	write(t, w, Stdout, "one\n\n", at)
	write(t, w, Stderr, "part", at)
	w.End(Stderr, at)
	b, _ = os.ReadFile(path)
	want = "2024-05-06T07:08:09.120000000Z stdout F one\n2024-05-06T07:08:09.120000000Z stdout F \n" +
		"2024-05-06T07:08:09.120000000Z stderr P part\n"
	if string(b) != want {
		t.Errorf("cri:\n%s\nwant:\n%s", b, want)
	}
	all = read(t, ReadOptions{Path: path, Format: CRI, Stdout: true, Stderr: true, Tail: -1})
	if joined(all) != "one\n\npart" {
		t.Errorf("cri read back: %+v", all)
	}
}

// moby#32923, docker/for-linux#1321: one logical line however long.
func TestLongLines(t *testing.T) {
	for _, size := range []int{30_000, 200_000, MaxLine - 1, MaxLine, MaxLine + 1, 3*MaxLine + 17} {
		path := filepath.Join(t.TempDir(), "log")
		w := open(t, Options{Path: path})
		line := "START" + strings.Repeat("é", (size-8)/2) + "END\n"
		for text := []byte(line); len(text) > 0; {
			n := min(len(text), 4097)
			write(t, w, Stdout, string(text[:n]), at)
			write(t, w, Stderr, "between\n", at)
			text = text[n:]
		}
		all := read(t, ReadOptions{Path: path, Stdout: true, Tail: -1})
		if joined(all) != line {
			t.Errorf("%d bytes: line came back changed", size)
		}
		for i, g := range all {
			if g.continued != (i > 0) {
				t.Errorf("%d bytes: piece %d of %d: continued is %v", size, i, len(all), g.continued)
			}
		}
		if size < MaxLine && len(all) != 1 {
			t.Errorf("%d bytes: %d entries", size, len(all))
		}
		write(t, w, Stdout, "last\n", at)
		if got := joined(read(t, ReadOptions{Path: path, Stdout: true, Tail: 1})); got != "last\n" {
			t.Errorf("%d bytes: tail 1 gives %d bytes", size, len(got))
		}
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	w := open(t, Options{Path: path, MaxSize: 1000, MaxFiles: 3})
	var last string
	for i := range 100 {
		last = fmt.Sprintf("line %d\n", i)
		write(t, w, Stdout, last, at)
	}
	names, _ := filepath.Glob(path + "*")
	if len(names) != 3 {
		t.Errorf("files: %v", names)
	}
	for _, n := range names {
		if fi, _ := os.Stat(n); fi.Size() > 1000 {
			t.Errorf("%s has %d bytes", n, fi.Size())
		}
	}
	all := read(t, ReadOptions{Path: path, Stdout: true, Tail: -1})
	if len(all) < 30 || all[len(all)-1].text != last {
		t.Errorf("%d lines, last %q", len(all), all[len(all)-1].text)
	}
	for i := 1; i < len(all); i++ {
		var a, b int
		fmt.Sscanf(all[i-1].text, "line %d", &a)
		fmt.Sscanf(all[i].text, "line %d", &b)
		if b != a+1 {
			t.Errorf("line %d follows %d", b, a)
		}
	}
	for _, n := range []int{0, 1, 5, 14, 20, 25, 1000} {
		tail := read(t, ReadOptions{Path: path, Stdout: true, Tail: n})
		want := all[max(0, len(all)-n):]
		if joined(tail) != joined(want) {
			t.Errorf("tail %d: %d lines, want %d", n, len(tail), len(want))
		}
	}
	for _, n := range names {
		if err := os.Remove(n); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, ReadOptions{Path: path, Stdout: true, Tail: 5}); len(got) != 0 {
		t.Errorf("missing log: %v", got)
	}
}

func TestSingleFileRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, Options{Path: path, MaxSize: 300})
	for i := range 20 {
		write(t, w, Stdout, fmt.Sprintf("line %d\n", i), at)
	}
	all := read(t, ReadOptions{Path: path, Stdout: true, Tail: -1})
	if len(all) == 0 || all[len(all)-1].text != "line 19\n" {
		t.Errorf("got %v", all)
	}
	if _, err := os.Stat(path + ".1"); err == nil {
		t.Error("one file was asked for")
	}
}

func TestTimeBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, Options{Path: path})
	for i := range 10 {
		write(t, w, Stdout, fmt.Sprintf("%d\n", i), at.Add(time.Duration(i)*time.Second))
	}
	all := read(t, ReadOptions{Path: path, Stdout: true, Tail: -1, Since: at.Add(3 * time.Second), Until: at.Add(5 * time.Second)})
	if joined(all) != "3\n4\n5\n" {
		t.Errorf("got %q", joined(all))
	}
}

// A writer killed in the middle of an entry loses that entry only.
func TestTornEntry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, Options{Path: path})
	write(t, w, Stdout, "one\n", at)
	w.Close()
	f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString(`{"log":"two\n","str`)
	f.Close()
	w = open(t, Options{Path: path})
	write(t, w, Stdout, "three\n", at)
	if all := read(t, ReadOptions{Path: path, Stdout: true, Tail: -1}); joined(all) != "one\nthree\n" {
		t.Errorf("got %q", joined(all))
	}
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	stopped := make(chan struct{})
	var b strings.Builder
	done := make(chan error, 1)
	go func() {
		done <- Read(t.Context(), ReadOptions{Path: path, Stdout: true, Tail: -1, Follow: true, Stopped: stopped},
			func(e *Entry) error { b.Write(e.Line); return nil })
	}()
	var want strings.Builder
	w := open(t, Options{Path: path, MaxSize: 2000, MaxFiles: 200})
	for i := range 1000 {
		text := fmt.Sprintf("line %d\n", i)
		want.WriteString(text)
		write(t, w, Stdout, text, at)
		if i%300 == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	close(stopped)
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the follower did not end")
	}
	if b.String() != want.String() {
		t.Errorf("followed %d bytes, want %d", b.Len(), want.Len())
	}
}

func TestFollowEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, Options{Path: path})
	write(t, w, Stdout, "x\n", at)
	err := Read(ctx, ReadOptions{Path: path, Stdout: true, Tail: 10, Follow: true},
		func(*Entry) error { cancel(); return nil })
	if err != context.Canceled {
		t.Errorf("err %v", err)
	}
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2024-05-06T07:08:09.12Z"}`))
	f.Add([]byte(`{"log":"\u001b[0m\u00e9\ud83d\ude00","stream":"stderr","time":"2024-05-06T07:08:09Z"}`))
	f.Add([]byte(`{"log":"x","stream":"stdout","attrs":{"a":"b"},"time":"2024-05-06T07:08:09Z"}`))
	f.Fuzz(func(t *testing.T, rec []byte) {
		var e Entry
		if _, ok := decodeFast(rec, nil, &e); ok {
			var r struct {
				Log, Stream string
				Time        time.Time
			}
			if err := json.Unmarshal(rec, &r); err != nil {
				return // raw control characters: more lenient than JSON
			}
			if r.Log != strings.ToValidUTF8(string(e.Line), "\ufffd") && r.Log != string(e.Line) &&
				len(bytes.Runes(e.Line)) != len([]rune(r.Log)) {
				t.Errorf("fast %q, json %q", e.Line, r.Log)
			}
		}
		decode(JSON, rec, nil, &e)
		decode(CRI, rec, nil, &e)
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("a\nb\x00\xff\"\\<>\u2028"))
	f.Fuzz(func(t *testing.T, line []byte) {
		rec := appendJSON(nil, Stdout, line, "", at)
		var e Entry
		if _, ok := decode(JSON, bytes.TrimSuffix(rec, []byte("\n")), nil, &e); !ok {
			t.Fatalf("can't read %q", rec)
		}
		if len(bytes.Runes(e.Line)) != len(bytes.Runes(line)) || bytes.ContainsRune(rec[:len(rec)-1], '\n') {
			t.Errorf("%q came back as %q", line, e.Line)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	w, err := Open(Options{Path: filepath.Join(b.TempDir(), "log"), MaxSize: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	chunk := []byte(strings.Repeat("2024-01-01 some typical line of output of a server\n", 640))
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		w.Write(Stdout, chunk, at)
	}
}

// containerd and CRI-O write long lines in pieces of 16 KiB, and readers of such logs are made for no longer ones.
func TestLongLinesOfTheCRI(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, Options{Path: path, Format: CRI})
	write(t, w, Stdout, strings.Repeat("x", 40_000)+"\n", at)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var pieces []string
	for line := range strings.Lines(string(raw)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		pieces = append(pieces, fmt.Sprint(f[2], " ", len(f[3])))
	}
	if got := strings.Join(pieces, ", "); got != "P 16384, P 16384, F 7232" {
		t.Errorf("pieces %s", got)
	}
}
