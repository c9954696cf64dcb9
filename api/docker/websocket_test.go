package docker

import (
	"bufio"
	"bytes"
	"net"
	"testing"
)

// TestWebSocketFrames: frames as RFC 6455's section 5.7 has them; what no client may send ends the connection.
func TestWebSocketFrames(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	w := &webSocket{conn: here, in: bufio.NewReader(here)}
	go func() {
		there.Write([]byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58}) // a masked text, "Hello"
		there.Write([]byte{0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f})                         // the same without a mask
	}()
	op, data, err := w.receive()
	if err != nil || op != opText || string(data) != "Hello" {
		t.Errorf("received %d %q, %v", op, data, err)
	}
	if _, _, err := w.receive(); err != errWebSocket {
		t.Errorf("a frame without a mask: %v", err)
	}
	for size, head := range map[int][]byte{
		5: {0x82, 5}, 256: {0x82, 126, 1, 0}, 65536: {0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0},
	} {
		sent := make(chan error, 1)
		go func() {
			_, err := w.Write(make([]byte, size))
			sent <- err
		}()
		got := make([]byte, len(head)+size)
		for n := 0; n < len(got); {
			m, err := there.Read(got[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if err := <-sent; err != nil || !bytes.HasPrefix(got, head) {
			t.Errorf("a message of %d bytes begins with % x, %v", size, got[:10], err)
		}
	}
}
