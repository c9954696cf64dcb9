package engine

import (
	"context"
	"io"
	"testing"
	"time"
)

// TestCopyHoldsNobodyUp: a client that copies out of a stopped container and does not read keeps nobody from starting
// it.
func TestCopyHoldsNobodyUp(t *testing.T) {
	patient := mostStall
	defer func() { mostStall = patient }()
	mostStall = 200 * time.Millisecond
	b := newBench(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id := b.create(sh("[ -e /big ] || head -c 5000000 /dev/urandom > /big; exec sleep 1000"))
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if st, err := b.StatPath(ctx, id, "/big"); err == nil && st.Size == 5000000 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the file does not appear")
		}
	}
	none := 0
	if err := b.Stop(ctx, id, StopOptions{Timeout: &none}); err != nil {
		t.Fatal(err)
	}
	_, slow, err := b.CopyFrom(ctx, id, "/big")
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		t.Errorf("start beside a copy: %v", err)
	}
	if n, err := io.Copy(io.Discard, slow); err != nil || n < 5000000 {
		t.Errorf("copied %d bytes: %v", n, err)
	}
	// Nor does one that copies in and sends nothing.
	if err := b.Stop(ctx, id, StopOptions{Timeout: &none}); err != nil {
		t.Fatal(err)
	}
	silent, w := io.Pipe()
	defer w.Close()
	copied := make(chan error, 1)
	go func() { copied <- b.CopyTo(ctx, id, "/", silent, CopyOptions{}) }()
	time.Sleep(100 * time.Millisecond) // until it has the lock; if it has not, the start is only quicker
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		t.Errorf("start beside a silent client: %v", err)
	}
	w.Close()
	<-copied
}
