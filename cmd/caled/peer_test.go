package main

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// TestSocketOwner: a socket has an owner while its process has it open. Afterwards the kernel names root, which must
// not open the registry to whoever sends a request and closes at once.
func TestSocketOwner(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	mine, peer := netip.MustParseAddrPort(server.RemoteAddr().String()), netip.MustParseAddrPort(server.LocalAddr().String())
	if uid, ok := socketOwner(mine, peer); !ok || int(uid) != os.Geteuid() {
		t.Errorf("an open socket belongs to %d (%v), not to %d", uid, ok, os.Geteuid())
	}
	client.Close()
	server.SetReadDeadline(time.Now().Add(10 * time.Second))
	server.Read(make([]byte, 1)) // until it is known here
	if uid, ok := socketOwner(mine, peer); ok {
		t.Errorf("a closed socket belongs to %d", uid)
	}
}
