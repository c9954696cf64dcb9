package lent

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/tonistiigi/fsutil/types"
)

// end is one end of a connection within this process: packets are handed over
// as they are. Data is copied once, as whoever sends it goes on using it.
type end struct {
	ctx      context.Context
	in       <-chan *types.Packet
	out      chan<- *types.Packet
	received *types.Packet // the last one, whose data is its receiver's until the next
}

var packets = sync.Pool{New: func() any { return &types.Packet{} }}

// ahead is how many packets may be on their way: the memory that a transfer
// takes.
const ahead = 64

func ends(ctx context.Context) (a, b *end) {
	one, two := make(chan *types.Packet, ahead), make(chan *types.Packet, ahead)
	return &end{ctx: ctx, in: one, out: two}, &end{ctx: ctx, in: two, out: one}
}

// Context implements fsutil.Stream.
func (e *end) Context() context.Context { return e.ctx }

var errPacket = errors.New("lent folder: not a packet")

// SendMsg implements fsutil.Stream.
func (e *end) SendMsg(m any) error {
	p, ok := m.(*types.Packet)
	if !ok {
		return errPacket
	}
	q := packets.Get().(*types.Packet)
	q.Type, q.ID, q.Stat, q.Data = p.Type, p.ID, p.Stat, append(q.Data[:0], p.Data...)
	select {
	case e.out <- q:
		return nil
	case <-e.ctx.Done():
		return context.Cause(e.ctx)
	}
}

// close says that nothing more will be sent.
func (e *end) close() { close(e.out) }

// RecvMsg implements fsutil.Stream.
func (e *end) RecvMsg(m any) error {
	p, ok := m.(*types.Packet)
	if !ok {
		return errPacket
	}
	if q := e.received; q != nil {
		e.received, q.Stat = nil, nil
		packets.Put(q)
	}
	select {
	case q, ok := <-e.in:
		if !ok {
			return io.EOF
		}
		p.Type, p.ID, p.Stat, p.Data = q.Type, q.ID, q.Stat, q.Data
		e.received = q
		return nil
	case <-e.ctx.Done():
		return context.Cause(e.ctx)
	}
}
