package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/user"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"cale/api/docker"
	"cale/audit"
)

// inherited is the socket that systemd passed (sd_listen_fds(3)), or nil.
func inherited() (net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 {
		return nil, nil
	}
	if n > 1 {
		return nil, errors.New("socket activation passed more than one socket: caled takes one")
	}
	unix.CloseOnExec(3)
	f := os.NewFile(3, "docker.sock")
	defer f.Close()
	return net.FileListener(f)
}

func groupID(name string) (int, bool) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, false
	}
	id, err := strconv.Atoi(g.Gid)
	return id, err == nil
}

// peerContext notes who is at the other end, for the audit log.
func peerContext(ctx context.Context, c net.Conn) context.Context {
	p := audit.PeerOf(c)
	if p == nil {
		return ctx
	}
	return docker.WithPeer(ctx, p)
}

// restDelay is how long after the last answer memory goes back to the kernel: what a start or a pull needed is of no
// use to a daemon that mostly waits.
const restDelay = 5 * time.Second

// calls counts the requests being answered: a daemon that answers is not idle.
type calls struct {
	next http.Handler
	n    atomic.Int64
	rest *time.Timer
}

func newCalls(h http.Handler) *calls {
	return &calls{next: h, rest: time.AfterFunc(restDelay, debug.FreeOSMemory)}
}

func (c *calls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.n.Add(1)
	defer func() {
		c.n.Add(-1)
		c.rest.Reset(restDelay)
	}()
	c.next.ServeHTTP(w, r)
}

func (c *calls) active() bool { return c.n.Load() > 0 }
