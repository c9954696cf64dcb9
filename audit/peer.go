package audit

import (
	"encoding/json"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of a socket, as the kernel tells.
type Peer struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	PID int32  `json:"pid"`
}

// PeerOf is who is at the other end of a connection, which may be wrapped; nil
// if the kernel does not tell.
func PeerOf(c net.Conn) *Peer {
	for {
		if f, ok := c.(*For); ok {
			return f.Peer
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = w.NetConn()
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil
	}
	var cred *unix.Ucred
	_ = raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || cred == nil {
		return nil
	}
	return &Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}
}

// Self is this process.
func Self() *Peer {
	return &Peer{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}
}

// For is a connection that another process is served through.
type For struct {
	net.Conn
	Peer *Peer
}

// peerHeader is a request's header by which the engine tells the builder whose
// request it passes on.
const peerHeader = "Cale-Peer"

// SetPeer notes in a request's header for whom it is made; whatever it said
// before goes.
func SetPeer(h http.Header, p *Peer) {
	h.Del(peerHeader)
	if raw, err := json.Marshal(p); err == nil && p != nil {
		h.Set(peerHeader, string(raw))
	}
}

// RequestPeer is whom a request is made for, that came over a connection with
// from at its other end. Only a process with this one's rights is believed.
func RequestPeer(h http.Header, from *Peer) *Peer {
	text := h.Get(peerHeader)
	if text == "" || from == nil || from.UID != uint32(os.Geteuid()) {
		return from
	}
	var p Peer
	if json.Unmarshal([]byte(text), &p) != nil {
		return from
	}
	return &p
}
