package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// allowed says whether the owner of the TCP connection from remote to local is root or in group. The kernel tells a
// loopback socket's owner in /proc/net/tcp; a connection that is not found there (another network namespace's, or
// another machine's) is nobody's.
func allowed(remote string, local any, group string) bool {
	r, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	la, ok := local.(net.Addr)
	if !ok {
		return false
	}
	l, err := netip.ParseAddrPort(la.String())
	if err != nil {
		return false
	}
	uid, ok := socketOwner(r, l)
	if !ok {
		return false
	}
	return uid == 0 || inGroup(uid, group)
}

func inGroup(uid uint32, group string) bool {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return false
	}
	gid, ok := groupID(group)
	if !ok {
		return false
	}
	ids, err := u.GroupIds()
	if err != nil {
		return false
	}
	for _, id := range ids {
		if id == strconv.Itoa(gid) {
			return true
		}
	}
	return false
}

// socketOwner finds the socket whose own end is mine and whose other end is peer: the client's side of a connection.
func socketOwner(mine, peer netip.AddrPort) (uint32, bool) {
	mine = netip.AddrPortFrom(mine.Addr().Unmap(), mine.Port())
	peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		if uid, ok := scanSockets(file, mine, peer); ok {
			return uid, true
		}
	}
	return 0, false
}

func scanSockets(file string, mine, peer netip.AddrPort) (uint32, bool) {
	f, err := os.Open(file)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		// sl local_address rem_address st queues tr:when retrnsmt uid timeout inode …: proc_net_tcp in the kernel's documentation.
		w := strings.Fields(sc.Text())
		if len(w) < 10 {
			continue
		}
		a, ok1 := kernelAddr(w[1])
		b, ok2 := kernelAddr(w[2])
		if !ok1 || !ok2 || a != mine || b != peer {
			continue
		}
		if w[9] == "0" {
			// No inode: its process has closed it (or it is not accepted yet), and the kernel says uid 0 for want of an
			// owner. Whoever sends and closes at once would pass for root.
			return 0, false
		}
		uid, err := strconv.ParseUint(w[7], 10, 32)
		return uint32(uid), err == nil
	}
	return 0, false
}

// kernelAddr reads an address as /proc/net/tcp writes it: 32-bit words in the machine's order, in hexadecimal.
func kernelAddr(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	if !ok {
		return netip.AddrPort{}, false
	}
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), true
}
