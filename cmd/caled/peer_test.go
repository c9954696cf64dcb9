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
	o, ok := socketOwner(mine, peer)
	if !ok || int(o.uid) != os.Geteuid() {
		t.Errorf("an open socket belongs to %d (%v), not to %d", o.uid, ok, os.Geteuid())
	}
	// It is a process that is let in, and one in a container is not.
	if !heldOutside(o.inode, func(pid int) bool { return pid != os.Getpid() }) {
		t.Error("nobody holds an open socket")
	}
	if heldOutside(o.inode, func(pid int) bool { return pid == os.Getpid() }) {
		t.Error("a container's socket passes for the host's")
	}
	client.Close()
	server.SetReadDeadline(time.Now().Add(10 * time.Second))
	server.Read(make([]byte, 1)) // until it is known here
	if o, ok := socketOwner(mine, peer); ok {
		t.Errorf("a closed socket belongs to %d", o.uid)
	}
	if heldOutside(o.inode, func(int) bool { return false }) {
		t.Error("somebody holds a closed socket")
	}
}
