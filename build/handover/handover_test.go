package handover

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// listening gives each command line that comes to f.
func listening(t *testing.T, f func(*Taken, error)) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, len(Hello))
			if _, err := io.ReadFull(c, b); err != nil || string(b) != Hello {
				t.Errorf("the beginning: %q, %v", b, err)
			}
			f(Take(c.(*net.UnixConn)))
		}
	}()
	return socket
}

func TestHandedOver(t *testing.T) {
	want := Line{Version: "1", Args: []string{"-t", "x", "."}, Env: []string{"A=" + string(make([]byte, 1<<20))}, Dir: "/tmp"}
	socket := listening(t, func(l *Taken, err error) {
		if err != nil {
			t.Error(err)
			return
		}
		if l.Dir != want.Dir || !slices.Equal(l.Args, want.Args) || !slices.Equal(l.Env, want.Env) || l.Peer.PID != int32(os.Getpid()) {
			t.Errorf("came as %q in %q", l.Args, l.Dir)
		}
		if _, err := l.Accept(context.Background()); err != nil {
			t.Error(err)
		}
		l.Done(7)
	})
	code, ok := Offer(t.Context(), socket, want)
	if code != 7 || !ok {
		t.Errorf("status %d, taken %v", code, ok)
	}
}

func TestRefused(t *testing.T) {
	socket := listening(t, func(l *Taken, err error) { l.Refuse() })
	if _, ok := Offer(t.Context(), socket, Line{}); ok {
		t.Error("what was refused counts as done")
	}
	if _, ok := Offer(t.Context(), socket+"x", Line{}); ok {
		t.Error("what nobody was asked counts as done")
	}
}

func TestCancelledByWhoAsked(t *testing.T) {
	socket := listening(t, func(l *Taken, _ error) {
		ctx, err := l.Accept(context.Background())
		if err != nil {
			t.Error(err)
			return
		}
		select {
		case <-ctx.Done():
			l.Done(130)
		case <-time.After(10 * time.Second):
			t.Error("it is not known that nobody waits any more")
			l.Done(0)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if code, ok := Offer(ctx, socket, Line{}); code != 130 || !ok {
		t.Errorf("status %d, taken %v", code, ok)
	}
}
