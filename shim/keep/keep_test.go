package keep

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cale/shim/stdio"
)

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// What a supervisor had is there for the next one, and goes when it is let go of.
func TestKeeper(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "keep.sock")
	fd, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		err := Serve(fd)
		unix.Close(fd)
		ended <- err
	}()
	c := Client{Socket: socket}
	watch, err := c.Watch()
	if err != nil {
		t.Fatal(err)
	}
	input, inputW := pipe(t)
	outputR, output := pipe(t)
	one := Key{Supervisor: "s", Container: "c"}
	put := func(k Key, e Entry) {
		t.Helper()
		e.Key = k
		if err := c.Put(&e); err != nil {
			t.Fatal(err)
		}
	}
	put(one, Entry{Pid: 7, Request: []byte("request"), Files: Files{Stdio: stdio.Ends{Stdin: inputW, Stderr: outputR}}})
	put(Key{Supervisor: "s", Container: "c", Exec: "e"}, Entry{})
	put(Key{Supervisor: "s", Container: "other"}, Entry{})
	put(Key{Supervisor: "another", Container: "c"}, Entry{})
	inputW.Close()
	outputR.Close()

	take := func(supervisor string) map[Key]*Entry {
		t.Helper()
		list, err := c.Take(supervisor)
		if err != nil {
			t.Fatal(err)
		}
		got := map[Key]*Entry{}
		for _, e := range list {
			got[e.Key] = e
			t.Cleanup(e.Files.Close)
		}
		return got
	}
	got := take("s")
	e := got[one]
	if len(got) != 3 || e == nil || e.Pid != 7 || string(e.Request) != "request" || e.Files.Stdio.Stdout != nil || e.Files.Pidfd != nil {
		t.Fatalf("taken: %+v", got)
	}
	if _, err := output.WriteString("said"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, err := e.Files.Stdio.Stderr.Read(buf); err != nil || string(buf[:n]) != "said" {
		t.Errorf("read %q, %v", buf[:n], err)
	}

	// The input ends for the process when both have closed it.
	e.Files.Stdio.Stdin.Close()
	if err := c.CloseInput(one); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(input); err != nil || len(rest) != 0 {
		t.Errorf("input: %q, %v", rest, err)
	}

	if err := c.Drop(one); err != nil { // its exec goes too
		t.Fatal(err)
	}
	if got := take("s"); len(got) != 1 || got[one] != nil {
		t.Errorf("after a drop: %v", got)
	}
	if err := c.Drop(Key{Supervisor: "s"}); err != nil {
		t.Fatal(err)
	}
	if got := take("s"); len(got) != 0 {
		t.Errorf("after all was dropped: %v", got)
	}

	watch.Close()
	select {
	case <-ended:
		t.Fatal("the keeper has ended, but holds something yet")
	case <-time.After(50 * time.Millisecond):
	}
	if err := c.Drop(Key{Supervisor: "another"}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the keeper does not end")
	}
	if err := c.Drop(one); !IsGone(err) {
		t.Errorf("without a keeper: %v", err)
	}
}
