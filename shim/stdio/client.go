package stdio

import (
	"encoding/binary"
	"net"
	"sync"
	"time"
)

const (
	// clientBuffer bounds the output kept for one attached client.
	clientBuffer = 1 << 20
	// patience is how long a process whose output also goes to a log waits for
	// an attached client that takes nothing, before the client is dropped. A
	// process without a log waits as long as its only audience stays.
	patience = 30 * time.Second
)

// endFrame ends the output for those who asked for it.
var endFrame = []byte{endStream, 0, 0, 0, 0, 0, 0, 0}

// client is the server's end of one attach: a queue and the goroutine that
// writes it out.
type client struct {
	conn  *net.UnixConn
	hello Hello

	mu     sync.Mutex
	queue  []byte
	ending bool // close when the queue is empty
	last   bool // the process is dead: take what is left without waiting
	more   chan struct{}
	room   chan struct{}
	dead   chan struct{}
	once   sync.Once
}

func newClient(conn *net.UnixConn, h Hello) *client {
	return &client{
		conn: conn, hello: h,
		more: make(chan struct{}, 1), room: make(chan struct{}, 1), dead: make(chan struct{}),
	}
}

func (c *client) wants(stream byte) bool {
	return stream == 1 && c.hello.Stdout || stream == 2 && c.hello.Stderr
}

// put queues one frame. When the queue is full it waits: for ever when limit is
// 0, else until the client has taken nothing for so long, which drops it.
func (c *client) put(stream byte, p []byte, limit time.Duration) {
	for {
		c.mu.Lock()
		if len(c.queue)+len(p) <= clientBuffer || len(c.queue) == 0 || c.last {
			c.queue = append(c.queue, stream, 0, 0, 0)
			c.queue = binary.BigEndian.AppendUint32(c.queue, uint32(len(p)))
			c.queue = append(c.queue, p...)
			c.mu.Unlock()
			notify(c.more)
			return
		}
		c.mu.Unlock()
		if limit == 0 {
			select {
			case <-c.room:
			case <-c.dead:
				return
			}
			continue
		}
		t := time.NewTimer(limit)
		select {
		case <-c.room:
		case <-c.dead:
			t.Stop()
			return
		case <-t.C:
			c.drop()
			return
		}
		t.Stop()
	}
}

// hurry lets put queue beyond the bound: the process has ended, what its pipes
// still hold is little, and nobody's exit shall wait for a slow client.
func (c *client) hurry() {
	c.mu.Lock()
	c.last = true
	c.mu.Unlock()
	notify(c.room)
}

// end closes the connection once all that is queued is written.
func (c *client) end() {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	notify(c.more)
}

// drop closes the connection now.
func (c *client) drop() {
	c.once.Do(func() {
		close(c.dead)
		c.conn.Close()
	})
}

// write writes the queue until the end.
func (c *client) write() {
	defer c.drop()
	for {
		select {
		case <-c.more:
		case <-c.dead:
			return
		}
		for {
			c.mu.Lock()
			out := c.queue
			c.queue = nil
			ending := c.ending
			c.mu.Unlock()
			if len(out) == 0 {
				if ending {
					if c.hello.End {
						c.conn.Write(endFrame)
					}
					return
				}
				break
			}
			for len(out) > 0 {
				n := min(len(out), 64<<10)
				if _, err := c.conn.Write(out[:n]); err != nil {
					return
				}
				out = out[n:]
				notify(c.room)
			}
		}
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
