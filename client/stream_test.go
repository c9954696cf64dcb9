package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func frame(stream byte, text string) string {
	n := len(text)
	return string([]byte{stream, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + text
}

func TestHijack(t *testing.T) {
	heard := make(chan string, 1)
	s := newServer(t, func(t *testing.T, r *bufio.Reader, c *net.UnixConn) {
		readRequest(r)
		io.WriteString(c, pong)
		first, header, err := readRequest(r)
		if err != nil {
			return
		}
		if header["Upgrade"] != "tcp" || header["Connection"] != "Upgrade" || !strings.Contains(first, "/containers/c%2Fd/attach?stderr=1&stdin=1&stdout=1&stream=1 ") {
			t.Errorf("request %q %v", first, header)
		}
		// Output that comes in the same packet as the answer is not lost.
		io.WriteString(c, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"+frame(1, "early"))
		b, _ := io.ReadAll(r) // until the client closes its side
		heard <- string(b)
		io.WriteString(c, frame(2, "late"))
	})
	stream, err := s.client.ContainerAttach(testContext(t), "c/d", Attach{Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if stream.Raw() {
		t.Error("stream is called raw")
	}
	io.WriteString(stream, "input")
	if err := stream.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if err := Demultiplex(&out, &errs, stream); err != nil {
		t.Fatal(err)
	}
	if out.String() != "early" || errs.String() != "late" || <-heard != "input" {
		t.Errorf("out %q, err %q", &out, &errs)
	}
}

func TestHijackRefused(t *testing.T) {
	s := newServer(t, answers("HTTP/1.1 409 Conflict\r\nContent-Length: 15\r\n\r\n{\"message\":\"x\"}"))
	if _, err := s.client.ContainerAttach(testContext(t), "c", Attach{}); !hasStatus(err, 409) || err.Error() != "x" {
		t.Fatalf("got %v", err)
	}
}

func TestDemultiplex(t *testing.T) {
	for _, c := range []struct{ in, out, errs, err string }{
		{"", "", "", ""},
		{frame(1, "a") + frame(2, "b") + frame(0, "c") + frame(1, ""), "ac", "b", ""},
		{frame(1, "abc")[:9], "a", "", "unexpected EOF"},
		{frame(1, "abc")[:5], "", "", "unexpected EOF"},
		{frame(3, "boom"), "", "", "boom"},
		{frame(9, "x"), "", "", "unknown stream 9"},
		{"\x01\x00\x00\x00\xff\xff\xff\xff", "", "", "broken output stream"},
	} {
		var out, errs bytes.Buffer
		err := Demultiplex(&out, &errs, strings.NewReader(c.in))
		if out.String() != c.out || errs.String() != c.errs || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %q, %q, %v", c.in, &out, &errs, err)
		}
	}
}

// An upload that the engine refuses midway shows the refusal, not a broken
// pipe.
func TestUploadRefused(t *testing.T) {
	s := newServer(t, func(t *testing.T, r *bufio.Reader, c *net.UnixConn) {
		readRequest(r)
		io.WriteString(c, pong)
		readRequest(r)
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 26\r\n\r\n{\"message\":\"read-only\"}    ")
	})
	endless := io.LimitReader(zeros{}, 1<<30)
	err := s.client.ContainerCopyTo(testContext(t), "c", "/", endless, true, false)
	if err == nil || err.Error() != "read-only" {
		t.Fatalf("got %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// An upload whose source fails must not look whole to the engine.
func TestUploadOfBrokenSource(t *testing.T) {
	body := make(chan string, 1)
	s := newServer(t, func(t *testing.T, r *bufio.Reader, c *net.UnixConn) {
		readRequest(r)
		io.WriteString(c, pong)
		readRequest(r)
		b, _ := io.ReadAll(r)
		body <- string(b)
	})
	source := io.MultiReader(strings.NewReader("abc"), failing{})
	err := s.client.ContainerCopyTo(testContext(t), "c", "/", source, true, false)
	if !errors.Is(err, errSource) {
		t.Errorf("error %v", err)
	}
	if b := <-body; b != "3\r\nabc\r\n" {
		t.Errorf("the engine read %q", b)
	}
}

var errSource = errors.New("source failed")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errSource }

func TestCancel(t *testing.T) {
	s := newServer(t, func(t *testing.T, r *bufio.Reader, c *net.UnixConn) {
		readRequest(r)
		io.WriteString(c, pong)
		readRequest(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nlog\n\r\n")
		io.Copy(io.Discard, r) // says nothing more, until the client leaves
	})
	ctx, cancel := context.WithCancel(testContext(t))
	r, err := s.client.ContainerLogs(ctx, "c", Logs{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "log\n" {
		t.Fatalf("%q, %v", buf, err)
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := r.Read(buf); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	r.Close()
}
