package engine

import "context"

// ExecWait waits for the end of a started session and gives its exit code.
func (e *Engine) ExecWait(ctx context.Context, id string) (int, error) {
	x, err := e.session(id)
	if err != nil {
		return 0, err
	}
	select {
	case <-x.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.exit == nil {
		return 0, conflict("exec %s was never started", id)
	}
	return *x.exit, nil
}

// ExecForget drops a session that has ended and that nobody is to ask about: probes run many.
func (e *Engine) ExecForget(id string) {
	x, err := e.session(id)
	if err != nil {
		return
	}
	x.mu.Lock()
	ended := x.expiry != nil && x.expiry.Stop()
	x.mu.Unlock()
	if ended {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.execs, id)
	}
}
