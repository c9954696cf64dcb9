package logfile

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// journalEntry takes one entry apart, as journald does.
func journalEntry(t *testing.T, c *net.UnixConn) map[string]string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf, oob := make([]byte, 2<<20), make([]byte, 64)
	n, on, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	b := buf[:n]
	if on > 0 {
		m, err := unix.ParseSocketControlMessage(oob[:on])
		if err != nil {
			t.Fatal(err)
		}
		fds, err := unix.ParseUnixRights(&m[0])
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fds[0]), "entry")
		defer f.Close()
		if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_WRITE == 0 {
			t.Errorf("the file is not sealed: %#x, %v", seals, err)
		}
		f.Seek(0, io.SeekStart)
		if b, err = io.ReadAll(f); err != nil {
			t.Fatal(err)
		}
	}
	out := map[string]string{}
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			t.Fatalf("no end of a field: %q", b)
		}
		if name, value, ok := bytes.Cut(line, []byte("=")); ok {
			out[string(name)] = string(value)
			b = rest
			continue
		}
		size := binary.LittleEndian.Uint64(rest)
		out[string(line)] = string(rest[8 : 8+size])
		b = rest[8+size+1:]
	}
	return out
}

// journalAt makes a folder and a journal's socket in it, which nobody reads yet.
func journalAt(t *testing.T) (dir, socket string, c *net.UnixConn) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "journal")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	if c, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	return dir, socket, c
}

// What is logged is in the journal too, whole whatever it holds and however long it is, and a journal that isn't there
// keeps nobody.
func TestJournal(t *testing.T) {
	dir, socket, c := journalAt(t)
	path := filepath.Join(dir, "log")
	w := open(t, Options{Path: path, Journal: &Journal{Socket: socket, Fields: map[string]string{
		"CONTAINER_NAME": "web", "com.example/label": "a\nb", "_FORGED": "x", "": "nothing"}}})
	write(t, w, Stdout, "one = \x00 1\n", at)
	if e := journalEntry(t, c); e["MESSAGE"] != "one = \x00 1" || e["PRIORITY"] != "6" || e["CONTAINER_NAME"] != "web" ||
		e["COM_EXAMPLE_LABEL"] != "a\nb" || e["FORGED"] != "x" || e["_FORGED"] != "" {
		t.Errorf("%q", e)
	}
	write(t, w, Stderr, "two\nhalf", at)
	if e := journalEntry(t, c); e["MESSAGE"] != "two" || e["PRIORITY"] != "3" {
		t.Errorf("%q", e)
	}
	w.End(Stderr, at)
	if e := journalEntry(t, c); e["MESSAGE"] != "half" || e["CONTAINER_PARTIAL_MESSAGE"] != "" {
		t.Errorf("%q", e)
	}
	long := strings.Repeat("long ", 500_000)
	written := make(chan error, 1)
	go func() { written <- w.Write(Stdout, []byte(long+"\n"), at) }() // a socket's queue is short
	got := ""
	for len(got) < len(long) {
		got += journalEntry(t, c)["MESSAGE"]
	}
	if got != long {
		t.Errorf("%d bytes of %d", len(got), len(long))
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	c.Close()
	began := time.Now()
	write(t, w, Stdout, "alone\n", at)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("without a journal a line takes %s", took)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(path); err != nil || !strings.Contains(string(raw), "alone") || !strings.Contains(string(raw), "half") {
		t.Errorf("the log itself: %d bytes, %v", len(raw), err)
	}
}

// A journal that is stuck keeps a container no longer than once in a while.
func TestJournalStuck(t *testing.T) {
	dir, socket, c := journalAt(t)
	defer c.Close() // which reads nothing
	w := open(t, Options{Path: filepath.Join(dir, "log"), Journal: &Journal{Socket: socket}})
	began := time.Now()
	for range 1000 {
		write(t, w, Stdout, "line\n", at)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("1000 lines take %s", took)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
