package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cale/test/stack"
)

// TestBuildHandedOver: a builder that runs carries builds out itself, with what
// is mounted and set for the command, and to the same image as the command does
// by itself.
func TestBuildHandedOver(t *testing.T) {
	s := stack.New(t)
	alone := filepath.Join(stack.Programs(t), "cale-build")
	dir := folder(t, map[string]string{"Dockerfile": "FROM " + s.Busybox() + "\nARG WHO\nCOPY seen /seen\nRUN echo $WHO > /who\n", "seen": "outside\n"})
	s.Do("", alone, "build", "-q", "--build-arg", "WHO=x", dir).OK(t)

	// A tree that only this command sees, by a relative path.
	script := `mount -t tmpfs none "$1" && cd "$1" && mkdir there && echo inside > there/seen && printf '%s' "$2" > there/Dockerfile &&
		WHO=me cale build -q -t over --build-arg WHO there`
	text, err := os.ReadFile(filepath.Join(dir, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	id := s.Do("", "unshare", "-m", "sh", "-c", script, "sh", dir, string(text)).OK(t)
	if got := s.Cale("run", "--rm", "over", "cat", "/seen", "/who").OK(t); got != "inside\nme\n" {
		t.Errorf("it was built of %q", got)
	}
	script = strings.ReplaceAll(script, "cale build", alone+" build")
	if got := s.Do("", "unshare", "-m", "sh", "-c", script, "sh", dir, string(text)).OK(t); got != id {
		t.Errorf("by itself the command builds %s, handed over %s", got, id)
	}

	// What goes wrong is said as ever.
	if r := s.Cale("build", dir+"/none"); r.Code != 1 || !strings.Contains(r.Stderr, `none" not found`) {
		t.Errorf("a folder that is not there: %+v", r)
	}
	if r := s.Cale("build", "--target", "none", dir); r.Code != 1 || !strings.Contains(r.Stderr, `"none" could not be found`) {
		t.Errorf("a target that is not there: %+v", r)
	}
}

// TestBuildHandedOverCancelled: who asked may end the build.
func TestBuildHandedOverCancelled(t *testing.T) {
	s := stack.New(t)
	dir := folder(t, map[string]string{"Dockerfile": "FROM " + s.Busybox() + "\nRUN echo begun; sleep 60\n"})
	s.Do("FROM "+s.Busybox(), "cale", "build", "-q", "-").OK(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := s.Command(ctx, "cale", "build", dir)
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	b, text := make([]byte, 4096), ""
	for !strings.Contains(text, "begun\n") {
		n, err := out.Read(b)
		if err != nil {
			t.Fatalf("%v after %q", err, text)
		}
		text += string(b[:n])
	}
	begin := time.Now()
	_ = cmd.Process.Signal(syscall.SIGINT)
	for {
		n, err := out.Read(b)
		text += string(b[:n])
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(text, "the build was cancelled") || time.Since(begin) > 20*time.Second {
		t.Errorf("exit status %d after %v: %s", code, time.Since(begin), text)
	}
}

// TestBuildSameSizeAndTime: a file that was changed and has its size and time
// as before is built anew; the field takes it for unchanged.
func TestBuildSameSizeAndTime(t *testing.T) {
	s := stack.New(t)
	dir := folder(t, map[string]string{"Dockerfile": "FROM " + s.Busybox() + "\nCOPY . /all/\n", "one": "first", "sub/two": "first"})
	at := time.Unix(1_700_000_000, 0)
	for i, text := range []string{"first", "other", "third"} {
		for _, name := range []string{"one", "sub/two"} {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
		// The builder is started by the first, and carries out the others.
		s.Cale("build", "-q", "-t", "same", dir).OK(t)
		if i == 0 {
			s.Cale("build", "-q", "-t", "same", dir).OK(t)
		}
		if got := s.Cale("run", "--rm", "same", "cat", "/all/one", "/all/sub/two").OK(t); got != text+text {
			t.Errorf("built of %q, the image has %q", text, got)
		}
	}
}

// TestBuildManyFiles: a project of many small files, then one changed, one
// gone and one new.
func TestBuildManyFiles(t *testing.T) {
	s := stack.New(t)
	files := map[string]string{"Dockerfile": "FROM " + s.Busybox() + " AS list\nCOPY . /src/\nRUN cd /src && find . -type f ! -name Dockerfile | sort | xargs cat | sha256sum > /sum\n" +
		"FROM scratch\nCOPY --from=list /sum /src/d7/f700 /\n"}
	for i := range 3000 {
		files[fmt.Sprintf("d%d/f%d", i/100, i)] = fmt.Sprintf("the file %d\n", i)
	}
	dir := folder(t, files)
	sum := func() string {
		t.Helper()
		out := t.TempDir()
		s.Cale("build", "-q", "-t", "many", dir).OK(t)
		id := strings.TrimSpace(s.Cale("create", "many", "none").OK(t))
		s.Cale("cp", id+":/sum", filepath.Join(out, "sum")).OK(t)
		s.Cale("rm", id).OK(t)
		text, err := os.ReadFile(filepath.Join(out, "sum"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	want := func() string {
		t.Helper()
		r := s.Do("", "sh", "-c", `cd "$1" && find . -type f ! -name Dockerfile | LC_ALL=C sort | xargs cat | sha256sum`, "sh", dir)
		return r.OK(t)
	}
	for _, change := range []func() error{
		func() error { return nil },
		func() error { return nil }, // now by the builder itself
		func() error { return os.WriteFile(filepath.Join(dir, "d7/f700"), []byte("changed\n"), 0o644) },
		func() error { return os.Remove(filepath.Join(dir, "d8/f801")) },
		func() error { return os.WriteFile(filepath.Join(dir, "d9/new"), []byte("new\n"), 0o644) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if got, want := sum(), want(); got != want {
			t.Errorf("built of other files: %q, not %q", got, want)
		}
	}
}
