package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// server is a scripted engine: each connection is handled by serve. Requests
// are read as bytes, so that the client's own HTTP is what is tested.
type server struct {
	client *Client
	conns  atomic.Int32
}

const pong = "HTTP/1.1 200 OK\r\nApi-Version: 1.48\r\nContent-Length: 2\r\n\r\nOK"

func newServer(t *testing.T, serve func(t *testing.T, r *bufio.Reader, c *net.UnixConn)) *server {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cale-client")
	if err != nil {
		t.Skip("no /dev/shm for a socket: ", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &server{}
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			s.conns.Add(1)
			go func() {
				defer c.Close()
				serve(t, bufio.NewReader(c), c)
			}()
		}
	}()
	if s.client, err = New(Options{Host: "unix://" + path}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.client.Close() })
	return s
}

// readRequest reads a request's head and returns its first line and header.
func readRequest(r *bufio.Reader) (first string, header map[string]string, err error) {
	header = map[string]string{}
	for n := 0; ; n++ {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", nil, err
		}
		line = strings.TrimRight(line, "\r\n")
		switch {
		case line == "":
			return first, header, nil
		case n == 0:
			first = line
		default:
			key, value, _ := strings.Cut(line, ": ")
			header[key] = value
		}
	}
}

// answers serves requests on one connection: pings by itself, the n-th other
// request with the n-th answer.
func answers(list ...string) func(*testing.T, *bufio.Reader, *net.UnixConn) {
	var next atomic.Int32
	return func(t *testing.T, r *bufio.Reader, c *net.UnixConn) {
		for {
			first, header, err := readRequest(r)
			if err != nil {
				return
			}
			if strings.HasPrefix(first, "GET /_ping ") {
				io.WriteString(c, pong)
				continue
			}
			if n := header["Content-Length"]; n != "" {
				var size int64
				fmt.Sscan(n, &size)
				io.CopyN(io.Discard, r, size)
			}
			i := int(next.Add(1)) - 1
			if i >= len(list) {
				t.Errorf("unexpected request %q", first)
				return
			}
			io.WriteString(c, list[i])
			if strings.Contains(list[i], "Connection: close") {
				return
			}
		}
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestNegotiation(t *testing.T) {
	for engine, want := range map[string]string{"1.48": "1.48", "1.51": "1.48", "1.40": "1.40", "": "1.48", "x": "1.48"} {
		got := make(chan string, 1)
		s := newServer(t, func(t *testing.T, r *bufio.Reader, c *net.UnixConn) {
			for {
				first, _, err := readRequest(r)
				if err != nil {
					return
				}
				if strings.HasPrefix(first, "GET /_ping ") {
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\napi-VERSION: %s\r\nContent-Length: 0\r\n\r\n", engine)
					continue
				}
				got <- first
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
			}
		})
		if _, err := s.client.ContainerList(testContext(t), List{All: true}); err != nil {
			t.Fatal(err)
		}
		if line := <-got; line != "GET /v"+want+"/containers/json?all=1 HTTP/1.1" {
			t.Errorf("engine %q: request %q, want version %s", engine, line, want)
		}
		if s.client.Version() != want {
			t.Errorf("engine %q: version %s, want %s", engine, s.client.Version(), want)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, answer, err string
		status            int
		names             int
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n" + `[{"Id":"a","Names":["/n"]}`, "unexpected EOF", 0, 0},
		{"whole", "HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n" + `[{"Id":"a","Names":["/n"]}]`, "", 0, 1},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n[{\"Id\r\n15\r\n\":\"a\",\"Names\":[\"/n\"]}\r\n1\r\n]\r\n0\r\nTrailer: x\r\n\r\n", "", 0, 1},
		{"chunks cut off", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\n[{\"Id\r\n", "unexpected EOF", 0, 0},
		{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "invalid syntax", 0, 0},
		{"until close", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[]", "", 0, 0},
		{"continue", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "", 0, 0},
		{"json error", "HTTP/1.1 404 Not Found\r\nContent-Length: 31\r\n\r\n{\"message\":\"No such container\"}", "No such container", 404, 0},
		{"text error", "HTTP/1.1 500 Oops\r\nContent-Length: 6\r\n\r\noops\n\n", "oops", 500, 0},
		{"empty error", "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n", "the engine answered with status 503", 503, 0},
		{"not http", "SSH-2.0-OpenSSH\r\n\r\n", "not HTTP", 0, 0},
		{"bad header", "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "bad header", 0, 0},
		{"bad length", "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n", "bad length", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, func(t *testing.T, r *bufio.Reader, conn *net.UnixConn) {
				if first, _, err := readRequest(r); err == nil && strings.HasPrefix(first, "GET /_ping ") {
					io.WriteString(conn, pong)
					readRequest(r)
				}
				io.WriteString(conn, c.answer)
			})
			list, err := s.client.ContainerList(testContext(t), List{})
			switch {
			case c.err == "" && c.status == 0:
				if err != nil || len(list) != c.names {
					t.Fatalf("got %v, %v", list, err)
				}
			case err == nil:
				t.Fatalf("no error, want %q", c.err)
			case !strings.Contains(err.Error(), c.err):
				t.Fatalf("error %q, want %q", err, c.err)
			}
			var e *Error
			if c.status != 0 && (!errors.As(err, &e) || e.Status != c.status) {
				t.Fatalf("error %#v, want status %d", err, c.status)
			}
		})
	}
}

func TestConnectionIsKept(t *testing.T) {
	ok := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
	refused := "HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\n{\"message\":\"x\"}"
	head := "HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\n" // HEAD: no body follows
	s := newServer(t, answers(ok, refused, head, ok, refused, ok))
	ctx := testContext(t)
	for i := 0; i < 2; i++ {
		if _, err := s.client.ContainerList(ctx, List{}); err != nil {
			t.Fatal(err)
		}
		if err := s.client.ContainerKill(ctx, "c", ""); !IsNotFound(err) {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := s.client.ContainerStat(ctx, "c", "/x"); !IsNotFound(err) {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.client.ContainerList(ctx, List{}); err != nil {
		t.Fatal(err)
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// A kept connection that the engine closed meanwhile is replaced.
func TestConnectionIsReplaced(t *testing.T) {
	var n atomic.Int32
	s := newServer(t, func(t *testing.T, r *bufio.Reader, c *net.UnixConn) {
		for {
			first, _, err := readRequest(r)
			if err != nil {
				return
			}
			if strings.HasPrefix(first, "GET /_ping ") {
				io.WriteString(c, pong)
				continue
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
			if n.Add(1) == 1 {
				return // without saying so before
			}
		}
	})
	ctx := testContext(t)
	for i := 0; i < 2; i++ {
		if _, err := s.client.ContainerList(ctx, List{}); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	if n := s.conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

func TestWaitIsRegisteredBeforeTheEnd(t *testing.T) {
	end := make(chan struct{})
	s := newServer(t, func(t *testing.T, r *bufio.Reader, c *net.UnixConn) {
		readRequest(r)
		io.WriteString(c, pong)
		readRequest(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		<-end
		io.WriteString(c, "10\r\n{\"StatusCode\":3}\r\n0\r\n\r\n")
	})
	e, err := s.client.ContainerWait(testContext(t), "c", "next-exit", func() { close(end) })
	if err != nil || e.StatusCode != 3 {
		t.Fatalf("%+v, %v", e, err)
	}
}

func TestDialer(t *testing.T) {
	for _, host := range []string{"", "/x", "http://x", "unix://", "ssh://", "ssh://user:password@h"} {
		if _, err := New(Options{Host: host}); err == nil {
			t.Errorf("host %q was taken", host)
		}
	}
}

func TestEscapes(t *testing.T) {
	got := make(chan string, 2)
	s := newServer(t, func(t *testing.T, r *bufio.Reader, c *net.UnixConn) {
		for {
			first, _, err := readRequest(r)
			if err != nil {
				return
			}
			if strings.HasPrefix(first, "GET /_ping ") {
				io.WriteString(c, pong)
				continue
			}
			got <- first
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
		}
	})
	s.client.ImageRemove(testContext(t), "host:5000/a/b@sha256:0 x?y", false, false)
	if line := <-got; line != "DELETE /v1.48/images/host:5000/a/b@sha256:0%20x%3Fy HTTP/1.1" {
		t.Errorf("request %q", line)
	}
	s.client.ContainerKill(testContext(t), "../x", "")
	if line := <-got; line != "POST /v1.48/containers/..%2Fx/kill HTTP/1.1" {
		t.Errorf("request %q", line)
	}
}

// An engine that ends between taking a connection and answering is asked again: the next one takes its place.
func TestPingOfAnEndingEngine(t *testing.T) {
	var ended atomic.Bool
	s := newServer(t, func(t *testing.T, r *bufio.Reader, c *net.UnixConn) {
		if !ended.Swap(true) {
			return
		}
		if _, _, err := readRequest(r); err == nil {
			io.WriteString(c, pong)
		}
	})
	if p, err := s.client.Ping(context.Background()); err != nil || p.APIVersion != "1.48" {
		t.Errorf("%+v, %v", p, err)
	}
}
