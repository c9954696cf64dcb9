package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"cale/atomicfile"
	"cale/shim"
)

// What a session that runs was asked for is written down beside its container's bundle, so that the next engine can
// tell of it. How it ended the shim knows until it is asked.

func (c *container) sessionsDir() string { return filepath.Join(c.pod, "execs") }

func (x *session) file() string { return filepath.Join(x.c.sessionsDir(), x.id) }

// keep writes the session down.
func (x *session) keep() error {
	raw, err := json.Marshal(&x.spec)
	if err != nil {
		return err
	}
	err = atomicfile.Write(x.file(), raw, 0o600, false)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(x.c.sessionsDir(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		err = atomicfile.Write(x.file(), raw, 0o600, false)
	}
	return err
}

func (x *session) unkeep() { os.Remove(x.file()) }

// resumeSessions takes up the sessions that another engine had started in a container that runs.
func (e *Engine) resumeSessions(ctx context.Context, c *container, r *run) {
	entries, err := os.ReadDir(c.sessionsDir())
	if err != nil {
		return // most have none
	}
	for _, d := range entries {
		x := &session{id: d.Name(), c: c, started: true, done: make(chan struct{})}
		raw, err := os.ReadFile(x.file())
		if err == nil {
			err = json.Unmarshal(raw, &x.spec)
		}
		if err != nil || len(x.id) != 64 { // half written
			x.unkeep()
			continue
		}
		st, err := r.shim.State(ctx, c.id, x.id)
		switch {
		case shim.IsNotFound(err):
			x.unkeep() // its end had been told
			continue
		case err != nil:
			e.cfg.Log("exec %s of container %s: %v", x.id, c.id, err)
			continue
		case st.Status == shim.StatusCreated:
			// The engine died between making it and letting it go.
			if _, err := r.shim.Delete(ctx, c.id, x.id); err != nil && !shim.IsNotFound(err) {
				e.cfg.Log("exec %s of container %s: %v", x.id, c.id, err)
			}
			x.unkeep()
			continue
		}
		e.mu.Lock()
		e.execs[x.id] = x
		e.mu.Unlock()
		e.followSession(x, r, int(st.Pid))
	}
}
