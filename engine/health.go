package engine

import (
	"context"
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
	run, err := e.ExecRun(ctx, c.id, ExecSpec{Cmd: cmd}, RunOptions{Timeout: timeout, Keep: healthOutput, Merged: true})
	res.End = time.Now()
	switch {
	case err != nil:
		res.Output = err.Error()
	case run.Late:
		res.Output = "Health check exceeded timeout (" + timeout.String() + ")"
		if len(run.Stdout) > 0 { // what it said until then
			res.Output += ": " + string(run.Stdout)
		}
	default:
		res.ExitCode, res.Output = run.ExitCode, string(run.Stdout)
	}
	return res
}
