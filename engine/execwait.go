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
