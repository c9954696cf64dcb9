package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"cale/shim"
	"cale/shim/keep"
)

// keeper is the engine's connection to the instance's keeper, which lets containers outlive their supervisors.
type keeper struct {
	mu    sync.Mutex
	watch *os.File // nil: it isn't known that one runs
}

func (e *Engine) keeperSocket() string { return filepath.Join(e.cfg.Run, "keep.sock") }

// needKeeper makes sure that a keeper runs. It reports whether that is a new one, which holds nothing yet. Containers
// run without one too.
func (e *Engine) needKeeper() (started bool) {
	e.keeper.mu.Lock()
	defer e.keeper.mu.Unlock()
	if e.keeper.watch != nil || e.ctx.Err() != nil {
		return false
	}
	watch, started, err := shim.WatchKeeper(e.cfg.Shim, e.keeperSocket())
	if err != nil {
		e.cfg.Log("containers will not outlive their supervisors: %v", err)
		return false
	}
	e.keeper.watch = watch
	e.work.Go(func() { e.watchKeeper(watch) })
	return started
}

// watchKeeper starts another keeper when this one dies.
func (e *Engine) watchKeeper(watch *os.File) {
	stop := context.AfterFunc(e.ctx, func() { watch.Close() })
	defer stop()
	_, _ = watch.Read(make([]byte, 1)) // it says nothing: this is its end, or ours
	e.keeper.mu.Lock()
	watch.Close()
	e.keeper.watch = nil
	e.keeper.mu.Unlock()
	if e.ctx.Err() != nil || !e.Live() {
		return
	}
	e.cfg.Log("the keeper died; another takes its place")
	if e.needKeeper() {
		e.keepAll()
	}
}

// keepAll has all supervisors give what they have to a new keeper.
func (e *Engine) keepAll() {
	clients := map[*shim.Client]bool{}
	for _, c := range e.all() {
		c.mu.Lock()
		if c.run != nil && !clients[c.run.shim] {
			clients[c.run.shim] = true
		}
		c.mu.Unlock()
	}
	for client := range clients {
		ctx, cancel := context.WithTimeout(e.ctx, shimGrace)
		if err := client.Keep(ctx); err != nil && !shim.IsUnavailable(err) && !shim.IsUnimplemented(err) {
			e.cfg.Log("a supervisor's containers will not outlive it: %v", err)
		}
		cancel()
	}
}

// supervisor says which shim supervises what: by which program, under which name, in which directory.
type supervisor struct{ program, id, bundle string }

func (e *Engine) launchOf(s supervisor) shim.Launch {
	return shim.Launch{Binary: s.program, Namespace: "cale", ID: s.id, Bundle: s.bundle, Keeper: e.keeperSocket()}
}

// call calls the container's shim, and says so if that is stopped, instead of waiting for ever.
func (c *container) call(ctx context.Context, do func(ctx context.Context) error) error {
	bundle := c.pod
	if c.group != nil {
		bundle = c.group.run
	}
	return shim.Unstopped(ctx, bundle, do)
}

// startSupervisor starts a shim that another will take over from if it dies.
func (e *Engine) startSupervisor(ctx context.Context, s supervisor) (*shim.Client, error) {
	if e.needKeeper() { // the last one died just now, or there was none
		e.work.Go(e.keepAll)
	}
	client, err := shim.Start(ctx, e.launchOf(s))
	if err != nil {
		return nil, err
	}
	e.lasting(client, s)
	return client, nil
}

// findSupervisor connects to a shim that was started before, or to one that takes over because it has died.
func (e *Engine) findSupervisor(ctx context.Context, s supervisor) (*shim.Client, error) {
	client, err := shim.Connect(ctx, s.bundle)
	if err != nil {
		if client, err = e.takeOver(ctx, s); err != nil {
			return nil, err
		}
	}
	e.lasting(client, s)
	return client, nil
}

func (e *Engine) lasting(client *shim.Client, s supervisor) {
	client.Revive(func(ctx context.Context) (*shim.Client, error) {
		if client, err := shim.Connect(ctx, s.bundle); err == nil {
			if _, err := client.Pid(ctx); err == nil {
				return client, nil
			}
			client.Close()
		}
		return e.takeOver(ctx, s)
	})
}

// takeOver starts a shim that goes on with the containers of one that died.
func (e *Engine) takeOver(ctx context.Context, s supervisor) (*shim.Client, error) {
	if e.ctx.Err() != nil {
		return nil, errors.New("the engine is closing")
	}
	if !shim.IsOwn(s.program) {
		return nil, fmt.Errorf("shim %s died, and can't be taken over from", s.program)
	}
	if e.needKeeper() {
		e.work.Go(e.keepAll) // the others are alive
		return nil, errors.New("the keeper died too: nothing is left to take over")
	}
	l := e.launchOf(s)
	l.Adopt = true
	client, err := shim.Start(ctx, l)
	if err == nil {
		if _, err = client.Pid(ctx); err == nil {
			e.cfg.Log("the supervisor of %s died; another goes on", s.id)
			return client, nil
		}
		client.Close()
	}
	return nil, fmt.Errorf("take over from the supervisor of %s: %w", s.id, err)
}

// letGo has the keeper let go of what a supervisor had, if that one didn't come to it.
func (e *Engine) letGo(id string) {
	if err := (keep.Client{Socket: e.keeperSocket()}).Drop(keep.Key{Supervisor: id}); err != nil && !keep.IsGone(err) {
		e.cfg.Log("%v", err)
	}
}
