package keep

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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

// A keeper that has no descriptor left turns away who comes, goes on with what it has, and doesn't spin.
func TestNoDescriptorsLeft(t *testing.T) {
	const mark = "CALE_TEST_KEEPER"
	if os.Getenv(mark) != "" {
		limit := unix.Rlimit{Cur: 24, Max: 24}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		t.Fatal(Serve(3))
	}
	socket := filepath.Join(t.TempDir(), "keep.sock")
	fd, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	listener := os.NewFile(uintptr(fd), "listener")
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestNoDescriptorsLeft$")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.ExtraFiles = []*os.File{listener}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listener.Close()
	defer cmd.Wait()
	defer cmd.Process.Kill()
	c := Client{Socket: socket}
	watch, err := c.Watch()
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	r, _ := pipe(t)
	if err := c.Put(&Entry{Key: Key{Supervisor: "s", Container: "first"}, Files: Files{Stdio: stdio.Ends{Stdout: r}}}); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		c.Put(&Entry{Key: Key{Supervisor: "s", Container: fmt.Sprint(i)}, Files: Files{Stdio: stdio.Ends{Stdout: r}}})
	}
	used := func() uint64 {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')'):]))
		user, _ := strconv.ParseUint(f[12], 10, 64)
		system, _ := strconv.ParseUint(f[13], 10, 64)
		return user + system // hundredths of a second
	}
	time.Sleep(200 * time.Millisecond)
	before := used()
	time.Sleep(time.Second)
	if took := used() - before; took > 30 {
		t.Errorf("doing nothing it takes %d0 ms of a second", took)
	}
	for i := range 40 { // lets go of some, as far as it hears
		c.Drop(Key{Supervisor: "s", Container: fmt.Sprint(i)})
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		list, err := c.Take("s")
		for _, e := range list {
			e.Files.Close()
		}
		if err == nil && len(list) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("what it had is lost: %v", err)
		}
		c.Drop(Key{Supervisor: "s", Container: "0"})
	}
}
