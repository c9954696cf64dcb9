package ttrpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = 30 * time.Second

// serve starts a server whose methods are the test's.
func serve(t *testing.T, h Handler) (*Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Handler: h}
	done := make(chan struct{})
	go func() {
		s.Serve(l)
		close(done)
	}()
	t.Cleanup(func() {
		l.Close()
		s.Close()
		<-done
	})
	return s, path
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	cl := NewClient(c)
	t.Cleanup(func() { cl.Close() })
	return cl
}

func methods(ctx context.Context, service, method string, payload []byte) ([]byte, error) {
	switch method {
	case "echo":
		return payload, nil
	case "block":
		<-ctx.Done()
		return nil, ctx.Err()
	case "missing":
		return nil, fmt.Errorf("while looking: %w", &Status{Code: NotFound, Message: "no " + service, Detail: "d"})
	case "plain":
		return nil, errors.New("plain")
	case "huge":
		return make([]byte, MaxMessage), nil
	}
	return nil, &Status{Code: Unimplemented, Message: method}
}

func TestCalls(t *testing.T) {
	_, path := serve(t, methods)
	c := dial(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, n := range []int{0, 1, 1000, 1 << 20, MaxMessage - 100} {
		in := bytes.Repeat([]byte{7}, n)
		out, err := c.Call(ctx, "s", "echo", in)
		if err != nil || !bytes.Equal(in, out) {
			t.Errorf("%d bytes: %d bytes, %v", n, len(out), err)
		}
	}
	if _, err := c.Call(ctx, "s", "echo", make([]byte, MaxMessage)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large a request: %v", err)
	}
	for method, want := range map[string]Status{
		"missing": {NotFound, "while looking: no s", "d"},
		"plain":   {Unknown, "plain", ""},
		"none":    {Unimplemented, "none", ""},
		"huge":    {ResourceExhausted, ErrTooLarge.Error(), ""},
	} {
		_, err := c.Call(ctx, "s", method, nil)
		if st, ok := errors.AsType[*Status](err); !ok || *st != want {
			t.Errorf("%s: %#v", method, err)
		}
	}
}

func TestConcurrentCalls(t *testing.T) {
	_, path := serve(t, methods)
	c := dial(t, path)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			in := []byte(fmt.Sprint(i))
			out, err := c.Call(t.Context(), "s", "echo", in)
			if err != nil || !bytes.Equal(in, out) {
				t.Errorf("%s came back as %s, %v", in, out, err)
			}
		})
	}
	wg.Wait()
}

func TestTimeouts(t *testing.T) {
	ended := make(chan struct{}, 4)
	s, path := serve(t, func(ctx context.Context, service, method string, p []byte) ([]byte, error) {
		defer func() { ended <- struct{}{} }()
		return methods(ctx, service, method, p)
	})
	c := dial(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Call(ctx, "s", "block", nil); CodeOf(err) != DeadlineExceeded && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("timeout: %v", err)
	}
	<-ended // the server keeps the client's time too
	// A client that goes away takes its calls along.
	go c.Call(t.Context(), "s", "block", nil)
	for s.Conns() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
	c.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the call outlives its client")
	}
	if _, err := c.Call(t.Context(), "s", "echo", nil); CodeOf(err) != Unavailable {
		t.Errorf("closed client: %v", err)
	}
}

func TestServerGone(t *testing.T) {
	s, path := serve(t, methods)
	c := dial(t, path)
	failed := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), "s", "block", nil)
		failed <- err
	}()
	for s.Conns() == 0 {
		time.Sleep(time.Millisecond)
	}
	s.Close()
	select {
	case err := <-failed:
		if code := CodeOf(err); code != Unavailable && code != Canceled {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the call hangs")
	}
	<-c.Done()
}

// Bytes as containerd's ttrpc writes them: golden frames.
func TestGoldenFrames(t *testing.T) {
	_, path := serve(t, methods)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	req := "\x0a\x03svc\x12\x04echo\x1a\x02hi\x20\x80\xc8\xaf\xa0\x25" // timeout 10 s
	io.WriteString(c, "\x00\x00\x00"+string(rune(len(req)))+"\x00\x00\x00\x03\x01\x00"+req)
	want := "\x00\x00\x00\x06\x00\x00\x00\x03\x02\x00" + "\x0a\x00\x12\x02hi"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestBadFrames(t *testing.T) {
	_, path := serve(t, methods)
	for name, frame := range map[string]string{
		"even stream":  "\x00\x00\x00\x00\x00\x00\x00\x02\x01\x00",
		"data frame":   "\x00\x00\x00\x00\x00\x00\x00\x01\x03\x00",
		"not protobuf": "\x00\x00\x00\x02\x00\x00\x00\x01\x01\x00\xff\xff",
	} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, frame)
		var buf [headerSize]byte
		h, err := readHeader(c, &buf)
		if err != nil || h.kind != typeResponse {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
		c.Close()
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "\xff\xff\xff\xff\x00\x00\x00\x01\x01\x00"+strings.Repeat("x", 100))
	if n, _ := io.Copy(io.Discard, c); n != 0 {
		t.Error("an oversized frame was answered")
	}
}

func FuzzMessages(f *testing.F) {
	f.Add((&request{service: "s", method: "m", payload: []byte("p"), timeout: 5}).append(nil))
	f.Add((&response{status: &Status{Code: 5, Message: "m", Detail: "d"}, payload: []byte("p")}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r request
		if r.unmarshal(b) == nil {
			var again request
			if err := again.unmarshal(r.append(nil)); err != nil || again.method != r.method || again.timeout != r.timeout {
				t.Errorf("%+v came back as %+v", r, again)
			}
		}
		new(response).unmarshal(b)
	})
}

// starved is a listener that lacks descriptors at first.
type starved struct {
	net.Listener
	lacks int
}

func (l *starved) Accept() (net.Conn, error) {
	if l.lacks > 0 {
		l.lacks--
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// TestStarvedListener: a server that had no descriptor left serves on once there are some.
func TestStarvedListener(t *testing.T) {
	inner, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	s := &Server{Handler: func(ctx context.Context, service, method string, payload []byte) ([]byte, error) { return payload, nil }}
	defer s.Close()
	go s.Serve(&starved{inner, 2})
	c, err := net.Dial("unix", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := NewClient(c)
	defer client.Close()
	if got, err := client.Call(context.Background(), "a", "b", []byte("still there")); err != nil || string(got) != "still there" {
		t.Errorf("answer %q, %v", got, err)
	}
}
