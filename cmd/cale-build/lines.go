package main

import (
	"context"
	"io"
	"net"

	"golang.org/x/sys/unix"

	apibuild "cale/api/build"
	"cale/build/command"
	"cale/build/handover"
	"cale/filetree"
	"cale/ondemand"
)

// lines carries out command lines of builds in the builder's own process: to
// load this program and connect takes longer than a build of which all is
// cached.
type lines struct {
	ctx      context.Context // the builder's
	settings settings
	builder  *apibuild.Split
	lend     command.Lend
}

func (s *lines) take(conn net.Conn) {
	defer conn.Close()
	u := unixConn(conn)
	if u == nil {
		return
	}
	t, err := handover.Take(u)
	if err != nil {
		return
	}
	root, err := unix.FcntlInt(uintptr(t.Root), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Refuse()
		return
	}
	tree := filetree.FromFD(root, "")
	defer tree.Close()
	at, closer := command.Away(t.Env, tree, t.Dir)
	defer closer()
	// What is wrong with it is told by whoever asks: there it has its own words.
	c, err := command.Parse(t.Args, io.Discard, at)
	if err != nil || t.Version != version+" "+commit || !c.Of(s.settings.root, s.settings.run) || !c.Plain(t.Err) || !s.engineRuns() || c.Prepare(nil) != nil {
		t.Refuse()
		return
	}
	ctx, err := t.Accept(s.ctx)
	if err != nil {
		return
	}
	c.Lends(s.lend)
	err = c.Run(ctx, command.Streams{Out: t.Out, Err: t.Err}, func(context.Context, string, string, bool) (func(context.Context) (net.Conn, error), func() error, error) {
		dial := func(ctx context.Context) (net.Conn, error) { return s.builder.DialFor(ctx, t.Peer) }
		return dial, func() error { return nil }, nil
	})
	t.Done(status(ctx, err, t.Err))
}

// engineRuns tells whether the builder has its engine. Where that was killed whoever
// asks starts it, as it must not be started from here.
func (s *lines) engineRuns() bool {
	if s.settings.alone {
		return true
	}
	c, err := ondemand.Engine(s.settings.root, s.settings.run).Connect(s.ctx)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

func unixConn(c net.Conn) *net.UnixConn {
	for {
		if u, ok := c.(*net.UnixConn); ok {
			return u
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = w.NetConn()
	}
}
