package stdio

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testPatience = 30 * time.Second

func TestURI(t *testing.T) {
	for _, u := range []URI{
		{},
		{Log: "/a b/c?&=#%.log", Driver: "json-file", MaxSize: 10 << 20, MaxFile: 3},
		{Attach: "/run/x.sock", Stdin: true, StdinOnce: true},
		{Log: "/x", Driver: "cri", Attrs: map[string]string{"label.a": "1", "": "é\n"}},
	} {
		got, err := ParseURI(u.String())
		if err != nil || !reflect.DeepEqual(got, u) {
			t.Errorf("%s: %+v, %v", u, got, err)
		}
	}
	for _, s := range []string{
		"", "cale://host/", "cale:///x", "file:///x", "cale:///?log=/x&driver=syslog", "cale:///?driver=cri",
		"cale:///?max-size=-1", "cale:///?max-size=1k", "cale:///?future=1", "cale:///?stdin=maybe", "cale:///?%zz",
	} {
		if u, err := ParseURI(s); err == nil {
			t.Errorf("%q was taken as %+v", s, u)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("cale:///?log=/x&max-file=3&attr.a=b")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			return
		}
		again, err := ParseURI(u.String())
		if err != nil || !reflect.DeepEqual(again, u) {
			t.Errorf("%q: %+v, then %+v, %v", s, u, again, err)
		}
	})
}

// fake is a process made of the ends that a real one would have.
type fake struct {
	t                     *testing.T
	io                    *IO
	hubs                  *Hubs
	stdin, stdout, stderr *os.File
	socket                string
}

func newFake(t *testing.T, hubs *Hubs, u URI, r Request) *fake {
	t.Helper()
	f := &fake{t: t, hubs: hubs, socket: u.Attach}
	if r.Stdout == "" {
		r.Stdout, r.Stderr = u.String(), u.String()
	}
	var err error
	if f.io, err = hubs.Open(r); err != nil {
		t.Fatal(err)
	}
	in, out, errs := f.io.Child()
	for _, p := range []struct {
		to   **os.File
		from *os.File
	}{{&f.stdin, in}, {&f.stdout, out}, {&f.stderr, errs}} {
		if p.from != nil {
			fd, err := unix.Dup(int(p.from.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			*p.to = os.NewFile(uintptr(fd), "child")
		}
	}
	f.io.Run()
	t.Cleanup(func() {
		f.die()
		f.io.Close()
	})
	return f
}

// die ends the fake process.
func (f *fake) die() {
	for _, p := range []*os.File{f.stdin, f.stdout, f.stderr} {
		if p != nil {
			p.Close()
		}
	}
	f.exited()
}

// exited runs Exited and sees that it returns.
func (f *fake) exited() {
	f.t.Helper()
	done := make(chan struct{})
	go func() {
		f.io.Exited()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(testPatience):
		f.t.Fatal("the exit is held up")
	}
}

func (f *fake) attach(h Hello) *Conn {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), testPatience)
	defer cancel()
	c, err := Dial(ctx, f.socket, h)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	c.c.SetDeadline(time.Now().Add(testPatience))
	return c
}

func collect(t *testing.T, c *Conn) (out, errs string) {
	t.Helper()
	var b [3]strings.Builder
	for {
		s, p, err := c.Next()
		if err == io.EOF {
			return b[1].String(), b[2].String()
		}
		if err != nil {
			t.Fatal(err)
		}
		b[s].Write(p)
	}
}

func TestAttachSeesOnlyItsStreams(t *testing.T) {
	hubs := new(Hubs)
	f := newFake(t, hubs, URI{Attach: filepath.Join(t.TempDir(), "s")}, Request{Container: "c"})
	both := f.attach(Hello{Stdout: true, Stderr: true})
	one := f.attach(Hello{Container: "c", Stderr: true})
	f.stdout.WriteString("out")
	f.stderr.WriteString("err")
	f.die()
	if o, e := collect(t, both); o != "out" || e != "err" {
		t.Errorf("both: %q %q", o, e)
	}
	if o, e := collect(t, one); o != "" || e != "err" {
		t.Errorf("one: %q %q", o, e)
	}
	// A late client learns that all is over.
	if o, e := collect(t, f.attach(Hello{Stdout: true})); o+e != "" {
		t.Errorf("late: %q %q", o, e)
	}
}

func TestStdinHalfClose(t *testing.T) {
	for _, once := range []bool{true, false} {
		hubs := new(Hubs)
		f := newFake(t, hubs, URI{Attach: filepath.Join(t.TempDir(), "s"), Stdin: true, StdinOnce: once}, Request{Container: "c"})
		a := f.attach(Hello{Stdin: true, Stdout: true})
		io.WriteString(a, "one ")
		a.CloseWrite()
		if once {
			if b, err := io.ReadAll(f.stdin); err != nil || string(b) != "one " {
				t.Errorf("once: %q, %v", b, err)
			}
		} else {
			b := make([]byte, 4)
			if _, err := io.ReadFull(f.stdin, b); err != nil {
				t.Fatal(err)
			}
			second := f.attach(Hello{Stdin: true})
			io.WriteString(second, "two ")
			if _, err := io.ReadFull(f.stdin, b); err != nil || string(b) != "two " {
				t.Errorf("second client: %q, %v", b, err)
			}
		}
		// The output still comes after the input's end.
		f.stdout.WriteString("done")
		f.die()
		if o, _ := collect(t, a); o != "done" {
			t.Errorf("got %q", o)
		}
	}
}

// A client that reads nothing holds up neither the exit nor loses output.
func TestStalledClientAtExit(t *testing.T) {
	hubs := new(Hubs)
	f := newFake(t, hubs, URI{Attach: filepath.Join(t.TempDir(), "s")}, Request{Container: "c", Exec: "e"})
	a := f.attach(Hello{Exec: "e", Stdout: true})
	text := bytes.Repeat([]byte("0123456789abcdef"), clientBuffer/16)
	written := make(chan int, 1)
	go func() {
		n := 0
		// Until pipe, queue and socket are all full.
		f.stdout.SetWriteDeadline(time.Now().Add(testPatience))
		for range 2 {
			m, _ := f.stdout.Write(text[:len(text)*5/8])
			n += m
		}
		written <- n
	}()
	var n int
	select {
	case n = <-written:
	case <-time.After(testPatience):
		t.Fatal("the writer is stuck within the buffers' size")
	}
	f.die()
	if o, _ := collect(t, a); len(o) != n {
		t.Errorf("got %d bytes of %d", len(o), n)
	}
}

// A child that outlives its parent and writes on holds up nobody's exit, nor fills the memory of a stalled client.
func TestExitUnderEndlessOutput(t *testing.T) {
	hubs := new(Hubs)
	f := newFake(t, hubs, URI{Attach: filepath.Join(t.TempDir(), "s")}, Request{Container: "c", Exec: "e"})
	f.attach(Hello{Exec: "e", Stdout: true}) // and reads nothing
	fd, err := unix.Dup(int(f.stdout.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	child := os.NewFile(uintptr(fd), "grandchild")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for p := make([]byte, 64<<10); ; {
			if _, err := child.Write(p); err != nil {
				return
			}
		}
	}()
	f.die()
	f.io.mu.Lock()
	clients := f.io.clients
	f.io.mu.Unlock()
	if len(clients) != 0 {
		t.Errorf("%d clients are left", len(clients))
	}
	f.io.Close() // its reading end: the grandchild gets EPIPE
	<-ended
	child.Close()
}

// What comes right behind the hello is the process's.
func TestInputBehindHello(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := newFake(t, new(Hubs), URI{Attach: path, Stdin: true, StdinOnce: true}, Request{Container: "c"})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testPatience))
	io.WriteString(c, `{"container":"`)
	time.Sleep(10 * time.Millisecond) // in pieces
	io.WriteString(c, `c","stdin":true}`+"\none\ntwo")
	c.(*net.UnixConn).CloseWrite()
	if b, err := io.ReadAll(f.stdin); err != nil || string(b) != "one\ntwo" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestBadHellos(t *testing.T) {
	hubs := new(Hubs)
	path := filepath.Join(t.TempDir(), "s")
	newFake(t, hubs, URI{Attach: path}, Request{Container: "c"})
	for hello, want := range map[string]string{
		`{"exec":"none"}` + "\n":             "no such process",
		`{"container":"other"}` + "\n":       "no such process",
		"{nonsense\n":                        "malformed",
		strings.Repeat("x", maxHello) + "\n": "",
	} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(testPatience))
		io.WriteString(c, hello)
		b, _ := io.ReadAll(c)
		if !strings.Contains(string(b), want) || strings.HasPrefix(string(b), "ok") {
			t.Errorf("%.20q: %q", hello, b)
		}
		c.Close()
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", fi, err)
	}
}

func TestSocketGoesWithLastProcess(t *testing.T) {
	hubs := new(Hubs)
	path := filepath.Join(t.TempDir(), strings.Repeat("long", 30), "s")
	os.MkdirAll(filepath.Dir(path), 0o700)
	a := newFake(t, hubs, URI{Attach: path}, Request{Container: "c"})
	b := newFake(t, hubs, URI{Attach: path}, Request{Container: "c", Exec: "e"})
	if _, err := hubs.Open(Request{Container: "c", Exec: "e", Stdout: URI{Attach: path}.String()}); err == nil {
		t.Error("an exec was registered twice")
	}
	a.die()
	a.io.Close()
	b.attach(Hello{Exec: "e", Stdout: true}).Close()
	b.die()
	b.io.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("socket: %v", err)
	}
	hubs.Wait(testPatience)
}

func mkfifo(t *testing.T, name string) string {
	path := filepath.Join(t.TempDir(), name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The way of containerd's clients. A reader that never comes holds up nothing.
func TestFifos(t *testing.T) {
	in, out, errs := mkfifo(t, "in"), mkfifo(t, "out"), mkfifo(t, "err")
	f := newFake(t, new(Hubs), URI{}, Request{Container: "c", Stdin: in, Stdout: out, Stderr: errs})
	w, err := os.OpenFile(in, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(out, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.WriteString("input")
	b := make([]byte, 5)
	if _, err := io.ReadFull(f.stdin, b); err != nil || string(b) != "input" {
		t.Errorf("stdin %q, %v", b, err)
	}
	w.WriteString("more")
	w.Close()
	f.io.CloseStdin()
	if b, err := io.ReadAll(f.stdin); err != nil || string(b) != "more" {
		t.Errorf("stdin %q, %v", b, err)
	}
	f.stdout.WriteString("output")
	// More than the fifo nobody reads can take.
	go f.stderr.Write(make([]byte, 100<<10))
	f.exited()
	if b, err := io.ReadAll(r); err != nil || string(b) != "output" {
		t.Errorf("stdout %q, %v", b, err)
	}
}

func TestUnsupportedTargets(t *testing.T) {
	for _, target := range []string{"binary:///bin/logger", "relative/path", "/no/such/fifo", "http://x"} {
		if _, err := new(Hubs).Open(Request{Container: "c", Stdout: target}); err == nil {
			t.Errorf("%s was accepted", target)
		}
	}
}

func TestFileTarget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "log")
	f := newFake(t, new(Hubs), URI{}, Request{Container: "c", Stdout: "file://" + path})
	f.stdout.WriteString("text\n")
	f.die()
	f.io.Close()
	if b, err := os.ReadFile(path); err != nil || string(b) != "text\n" {
		t.Errorf("%q, %v", b, err)
	}
}
