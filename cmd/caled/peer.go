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
// another machine's) is nobody's. contained says whether a process is a container's: root in a container that has the
// host's network is not root here. It is nil while there is no such container.
func allowed(remote string, local any, group string, contained func(pid int) bool) bool {
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
	owner, ok := socketOwner(r, l)
	if !ok || owner.uid != 0 && !inGroup(owner.uid, group) {
		return false
	}
	return contained == nil || heldOutside(owner.inode, contained)
}

// heldOutside looks for the processes that have a socket open: there must be one, and none may be a container's.
func heldOutside(inode string, contained func(pid int) bool) bool {
	found := false
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	want := "socket:[" + inode + "]"
	for _, d := range procs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || !holds(pid, want) {
			continue
		}
		if contained(pid) {
			return false
		}
		found = true
	}
	return found
}

func holds(pid int, link string) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false // it has ended
	}
	for _, fd := range fds {
		if to, err := os.Readlink(dir + "/" + fd.Name()); err == nil && to == link {
			return true
		}
	}
	return false
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

// owner is whose a socket is, and the number by which processes hold it.
type owner struct {
	uid   uint32
	inode string
}

// socketOwner finds the socket whose own end is mine and whose other end is peer: the client's side of a connection.
func socketOwner(mine, peer netip.AddrPort) (owner, bool) {
	mine = netip.AddrPortFrom(mine.Addr().Unmap(), mine.Port())
	peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		if o, ok := scanSockets(file, mine, peer); ok {
			return o, true
		}
	}
	return owner{}, false
}

func scanSockets(file string, mine, peer netip.AddrPort) (owner, bool) {
	f, err := os.Open(file)
	if err != nil {
		return owner{}, false
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
			return owner{}, false
		}
		uid, err := strconv.ParseUint(w[7], 10, 32)
		return owner{uint32(uid), w[9]}, err == nil
	}
	return owner{}, false
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
