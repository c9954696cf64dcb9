// Package audit is the log of what clients did that gives power over the host:
// one JSON object a line, kept for ever, and turned over by whoever turns the
// machine's logs. Engine and builder write the same file.
package audit

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of a socket, as the kernel tells.
type Peer struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	PID int32  `json:"pid"`
}

// Entry is one action that gives power over the host.
type Entry struct {
	Peer    *Peer    `json:"peer,omitempty"`
	Action  string   `json:"action"`
	Object  string   `json:"object"`
	Powers  []string `json:"powers"`
	Outcome string   `json:"outcome"` // done, or the error
}

// PeerOf is who is at the other end of a connection, which may be wrapped; nil
// if the kernel does not tell.
func PeerOf(c net.Conn) *Peer {
	for {
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

// Log is the log's file.
type Log struct {
	mu sync.Mutex
	f  *os.File
}

// Open opens the file, which others may append to as well.
func Open(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return &Log{f: f}, nil
}

// Close closes the file.
func (a *Log) Close() error { return a.f.Close() }

// Record appends a line; that it can't is told to the program's own log.
func (a *Log) Record(e Entry) {
	line, err := json.Marshal(struct {
		Time string `json:"time"`
		Entry
	}{time.Now().UTC().Format(time.RFC3339Nano), e})
	if err != nil {
		log.Printf("audit log: %v", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.f.Write(append(line, '\n')); err != nil {
		log.Printf("audit log: %v", err)
	}
}
