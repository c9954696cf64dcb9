package stdio

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxClients bounds the attached clients of one socket, their buffers with them.
const maxClients = 128

// procKey names a process whose streams clients may attach to.
type procKey struct{ container, exec string }

// Hubs are the attach sockets of one shim. The zero value is ready.
type Hubs struct {
	mu    sync.Mutex
	hubs  map[string]*hub
	conns sync.WaitGroup
}

// hub is one attach socket. It exists while a process uses it.
type hub struct {
	path  string
	place Place
	l     *net.UnixListener
	slots chan struct{}
	all   *Hubs

	mu    sync.Mutex
	procs map[procKey]*IO
}

// join registers io at the socket path, which is made when it is the first.
func (hs *Hubs) join(path string, key procKey, io *IO) (*hub, error) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h := hs.hubs[path]
	if h == nil {
		l, err := listen(path)
		if err != nil {
			return nil, err
		}
		h = &hub{path: path, place: PlaceOf(path), l: l, slots: make(chan struct{}, maxClients), all: hs, procs: make(map[procKey]*IO)}
		if hs.hubs == nil {
			hs.hubs = make(map[string]*hub)
		}
		hs.hubs[path] = h
		go h.serve()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.procs[key] != nil {
		return nil, errors.New("attach: process " + key.container + " " + key.exec + " is registered already")
	}
	h.procs[key] = io
	return h, nil
}

// leave takes key out; the last one closes the socket.
func (hs *Hubs) leave(h *hub, key procKey) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h.mu.Lock()
	delete(h.procs, key)
	empty := len(h.procs) == 0
	h.mu.Unlock()
	if empty && hs.hubs[h.path] == h {
		delete(hs.hubs, h.path)
		h.l.Close()
		h.place.Remove()
	}
}

// Wait waits until all clients have taken what is queued for them or are gone,
// no longer than d.
func (hs *Hubs) Wait(d time.Duration) {
	done := make(chan struct{})
	go func() {
		hs.conns.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(d):
	}
}

func (h *hub) serve() {
	for {
		h.slots <- struct{}{}
		c, err := h.l.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			<-h.slots
			time.Sleep(50 * time.Millisecond) // out of descriptors: they come back
			continue
		}
		h.all.conns.Add(1)
		go func() {
			h.client(c)
			c.Close()
			<-h.slots
			h.all.conns.Done()
		}()
	}
}

// client serves one connection to its end.
func (h *hub) client(c *net.UnixConn) {
	c.SetDeadline(time.Now().Add(helloTimeout))
	line, err := readLine(c)
	if err != nil {
		return
	}
	var hello Hello
	if err := json.Unmarshal(line, &hello); err != nil {
		io.WriteString(c, "error: malformed hello\n")
		return
	}
	p := h.find(hello)
	if p == nil {
		io.WriteString(c, "error: no such process\n")
		return
	}
	cl := newClient(c, hello)
	// Registered before the answer: what comes after "ok" is not missed.
	if !p.attach(cl) {
		io.WriteString(c, "ok\n") // it has ended: no more output
		if hello.End {
			c.Write(endFrame)
		}
		return
	}
	defer p.detach(cl)
	if _, err := io.WriteString(c, "ok\n"); err != nil {
		return
	}
	c.SetDeadline(time.Time{})
	go p.input(cl)
	cl.write()
}

func (h *hub) find(hello Hello) *IO {
	h.mu.Lock()
	defer h.mu.Unlock()
	if hello.Container != "" {
		return h.procs[procKey{hello.Container, hello.Exec}]
	}
	for k, p := range h.procs {
		if k.exec == hello.Exec {
			return p
		}
	}
	return nil
}

// readLine reads a line and nothing more: what follows it is the process's input.
func readLine(c *net.UnixConn) ([]byte, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var line []byte
	for len(line) < maxHello {
		var buf [512]byte
		var n, end int
		rerr := rc.Read(func(fd uintptr) bool {
			if n, err = recv(int(fd), buf[:], unix.MSG_PEEK); err == unix.EAGAIN {
				return false
			}
			if err == nil && n > 0 {
				end = bytes.IndexByte(buf[:n], '\n') + 1
				if end > 0 {
					n = end
				}
				n, err = recv(int(fd), buf[:n], 0)
			}
			return true
		})
		switch {
		case rerr != nil:
			return nil, rerr
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.ErrUnexpectedEOF
		}
		line = append(line, buf[:n]...)
		if end > 0 {
			return line[:len(line)-1], nil
		}
	}
	return nil, errors.New("attach: hello too long")
}

func recv(fd int, p []byte, flags int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, p, flags)
		if err != unix.EINTR {
			return n, err
		}
	}
}
