package dbus

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// decode reads a whole message.
func decode(b []byte, bo binary.ByteOrder) (*Message, error) {
	r := &reader{b: b, at: 4, order: bo}
	m, err := decodeHead(r)
	if err != nil {
		return nil, err
	}
	m.Body, err = r.values(m.bodySignature, 0)
	return m, err
}

// What is written is read back, with the alignment of all types in each other.
func TestRoundTrip(t *testing.T) {
	body := []any{"unit.scope", true, []any{
		[]any{"PIDs", Variant{"au", []any{uint32(1), uint32(2)}}},
		[]any{"Max", Variant{"t", uint64(1<<64 - 1)}},
		[]any{"Mask", Variant{"ay", []any{byte(3), byte(0x80)}}},
		[]any{"Words", Variant{"as", []any{"a", ""}}},
	}, []any{}, int32(-5)}
	sig := "sba(sv)a(sa(sv))i"
	m := &Message{kind: methodCall, serial: 7, Path: "/a/b", Interface: "a.b", Member: "C", Destination: "d", bodySignature: sig, Body: body}
	raw, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(raw, binary.LittleEndian)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, want %+v", got, m)
	}
	for _, bad := range [][]any{{1}, {"a\x00b"}, {}} {
		if _, err := appendValues(nil, "s", bad); err == nil {
			t.Errorf("%v was taken for a string", bad)
		}
	}
}

// A message from anyone is read or refused, without harm.
func FuzzDecode(f *testing.F) {
	m := &Message{kind: signal, serial: 1, Path: "/a", Interface: "b.c", Member: "d", bodySignature: "uos(v)a{sv}",
		Body: []any{uint32(1), "/j", "done", []any{Variant{"t", uint64(3)}}, []any{[]any{"k", Variant{"b", true}}}}}
	raw, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 16 {
			return
		}
		_, _ = decode(b, binary.LittleEndian)
		_, _ = decode(b, binary.BigEndian)
	})
}

// full listens at a socket, and has as many wait there as may.
func full(t *testing.T) (path string, listener int) {
	t.Helper()
	path = t.TempDir() + "/s"
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(listener, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(listener, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(listener) })
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			return path, listener
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A server that is busy is waited for, till the deadline.
func TestDialBusy(t *testing.T) {
	path, listener := full(t)
	if _, err := Dial(path, "", time.Now().Add(20*time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error: %v", err)
	}
	go func() {
		for {
			fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			f := os.NewFile(uintptr(fd), "accepted")
			go func() {
				defer f.Close()
				r := bufio.NewReader(f)
				if line, err := r.ReadString('\n'); err == nil && strings.HasPrefix(line, "\x00AUTH EXTERNAL") {
					io.WriteString(f, "OK 0123\r\n")
					io.Copy(io.Discard, r)
				}
			}()
		}
	}()
	c, err := Dial(path, "", time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// alone listens as a peer without a bus, and answers every call as told.
func alone(t *testing.T, answer func(c *Conn, m *Message)) (path string) {
	t.Helper()
	path = t.TempDir() + "/s"
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(listener, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(listener, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(listener) })
	go func() {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		f := os.NewFile(uintptr(fd), "accepted")
		defer f.Close()
		c := &Conn{c: f, r: bufio.NewReader(f)}
		for _, reply := range []string{"DATA\r\n", "OK 0123\r\n", ""} {
			if _, err := c.r.ReadString('\n'); err != nil {
				return
			}
			io.WriteString(f, reply)
		}
		for {
			m, err := c.Next()
			if err != nil {
				return
			}
			answer(c, m)
		}
	}()
	return path
}

// Without a bus all is the peer's, of which the watched signals are kept; of too many the last.
func TestPeer(t *testing.T) {
	path := alone(t, func(c *Conn, m *Message) {
		for i := range uint32(5) {
			c.Emit("", "/a", "b.c", "D", "us", i, strings.Repeat("x", 300<<10))
			c.Emit("", "/a", "b.c", "Other", "s", strings.Repeat("x", 2<<20))
		}
		if m.Member == "Long" {
			c.Reply(m, "s", strings.Repeat("x", 2<<20))
			return
		}
		c.Reply(m, "s", "yes")
	})
	c, err := Dial(path, "", time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Watch("/a", "b.c", "D"); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Call("/a", "b.c", "Short", ""); err != nil || !reflect.DeepEqual(out, []any{"yes"}) {
		t.Errorf("got %v, %v", out, err)
	}
	m, err := c.Signal(func(*Message) bool { return true })
	if err != nil || m.Body[0] != uint32(2) {
		t.Errorf("the first signal kept: %v, %v", m, err)
	}
	if _, err := c.Call("/a", "b.c", "Long", ""); !errors.Is(err, errTooLong) {
		t.Errorf("a long answer: %v", err)
	}
}
