package engine

import (
	"context"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
	healthKept          = 5
	healthOutput        = 4096
)

// monitor runs a container's health check again and again.
type monitor struct {
	mu sync.Mutex
	st HealthState
}

func (m *monitor) state() *HealthState {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.st
	st.Log = slices.Clone(st.Log)
	return &st
}

// startHealth begins the checks of a run, if it has any.
func (e *Engine) startHealth(ctx context.Context, c *container, r *run) {
	c.mu.Lock()
	h := c.rec.Run.Health
	shell := c.rec.Run.Shell
	c.mu.Unlock()
	if h == nil || len(h.Test) == 0 || h.Test[0] == "NONE" || h.Test[0] == "" {
		return
	}
	cmd := h.Test[1:]
	if h.Test[0] == "CMD-SHELL" {
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		cmd = append(slices.Clone(shell), strings.Join(cmd, " "))
	}
	if len(cmd) == 0 {
		return
	}
	m := &monitor{st: HealthState{Status: "starting"}}
	c.mu.Lock()
	r.health = m
	c.mu.Unlock()
	e.work.Add(1)
	go func() {
		defer e.work.Done()
		e.watchHealth(ctx, c, r, m, *h, cmd)
	}()
}

func (e *Engine) watchHealth(ctx context.Context, c *container, r *run, m *monitor, h Health, cmd []string) {
	orDefault := func(d, or time.Duration) time.Duration {
		if d == 0 {
			return or
		}
		return d
	}
	interval, timeout := orDefault(h.Interval, healthInterval), orDefault(h.Timeout, healthTimeout)
	first := orDefault(h.StartInterval, healthStartInterval)
	retries := h.Retries
	if retries == 0 {
		retries = healthRetries
	}
	begun := time.Now()
	for {
		wait := interval
		if m.state().Status == "starting" && time.Since(begun) < h.StartPeriod {
			wait = min(first, interval)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		c.mu.Lock()
		paused := c.rec.State.Status == Paused
		c.mu.Unlock()
		if paused {
			continue
		}
		res := e.probe(ctx, c, cmd, timeout)
		if ctx.Err() != nil {
			return
		}
		grace := res.Start.Sub(begun) < h.StartPeriod
		if was, is := m.note(res, retries, grace); was != is {
			e.emit(c, "health_status: "+is)
			if is == "unhealthy" {
				e.work.Go(func() { e.onUnhealthy(c, r) }) // the checks end with the run
			}
		}
	}
}

// onUnhealthy does what a container's Spec says of it. Killed is not stopped: the restart policy has its say.
func (e *Engine) onUnhealthy(c *container, r *run) {
	c.mu.Lock()
	action, same := c.rec.Spec.OnUnhealthy, c.run == r
	c.mu.Unlock()
	if action == "" || !same {
		return
	}
	e.cfg.Log("container %s is unhealthy: %s", c.id, action)
	var err error
	switch action {
	case "kill":
		err = r.shim.Kill(e.ctx, c.id, "", uint32(unix.SIGKILL), true)
	case "restart":
		err = e.Restart(e.ctx, c.id, StopOptions{})
	case "stop":
		err = e.Stop(e.ctx, c.id, StopOptions{})
	}
	if err != nil && !gone(err) {
		e.cfg.Log("container %s: %s an unhealthy container: %v", c.id, action, err)
	}
}

// note takes a result in, and gives the status before and after.
func (m *monitor) note(res HealthResult, retries int, grace bool) (was, is string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was = m.st.Status
	m.st.Log = append(m.st.Log, res)
	if len(m.st.Log) > healthKept {
		m.st.Log = slices.Clone(m.st.Log[len(m.st.Log)-healthKept:])
	}
	switch {
	case res.ExitCode == 0:
		m.st.FailingStreak, m.st.Status = 0, "healthy"
	case grace && m.st.Status == "starting":
		// Failures while it starts don't count.
	default:
		if m.st.FailingStreak++; m.st.FailingStreak >= retries {
			m.st.Status = "unhealthy"
		}
	}
	return was, m.st.Status
}

// probe runs the check once.
func (e *Engine) probe(ctx context.Context, c *container, cmd []string, timeout time.Duration) HealthResult {
	res := HealthResult{Start: time.Now(), ExitCode: -1}
	defer func() { res.End = time.Now() }()
	id, err := e.ExecCreate(ctx, c.id, ExecSpec{Cmd: cmd, Stdout: true, Stderr: true})
	if err != nil {
		res.End, res.Output = time.Now(), err.Error()
		return res
	}
	x, err := e.session(id)
	if err != nil {
		res.End, res.Output = time.Now(), err.Error()
		return res
	}
	defer func() {
		e.mu.Lock()
		delete(e.execs, id)
		e.mu.Unlock()
	}()
	st, err := e.ExecStart(ctx, id, ExecStartOptions{})
	if err != nil {
		res.End, res.Output = time.Now(), err.Error()
		return res
	}
	defer st.Close()
	out := checkOutput{ended: make(chan struct{})}
	go out.read(st)
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-x.done:
		x.mu.Lock()
		res.ExitCode = *x.exit
		x.mu.Unlock()
		select {
		case <-out.ended:
		case <-t.C:
		}
		res.Output = out.text()
	case <-ctx.Done():
	case <-t.C:
		x.mu.Lock()
		r := x.run
		x.mu.Unlock()
		r.shim.Kill(context.WithoutCancel(ctx), c.id, id, 9, false)
		res.Output = "Health check exceeded timeout (" + timeout.String() + ")"
		// What it said until then: a child that lives on may hold its output open.
		if said := out.text(); said != "" {
			res.Output += ": " + said
		}
	}
	res.End = time.Now()
	return res
}

// checkOutput keeps the first healthOutput bytes of what a check says.
type checkOutput struct {
	mu    sync.Mutex
	out   []byte
	ended chan struct{}
}

func (o *checkOutput) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.out)
}

// Write implements io.Writer.
func (o *checkOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.out = append(o.out, p[:min(len(p), max(healthOutput-len(o.out), 0))]...)
	return len(p), nil
}

// read takes a stream of Docker's frames to its end.
func (o *checkOutput) read(r io.Reader) {
	defer close(o.ended)
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		if _, err := io.CopyN(o, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return
		}
	}
}
