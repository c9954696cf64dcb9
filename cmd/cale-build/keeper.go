package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"cale/build"
	"cale/build/keep"
	"cale/image/store"
	"cale/ondemand"
)

// backAgain is how long a builder that is at work waits for an engine that is
// being started anew.
const backAgain = 30 * time.Second

// keeper is the image store's owner: the engine, or this process itself.
type keeper struct {
	keep.Keeper
	engine *keep.Engine // nil without one
	lost   <-chan struct{}
	end    func()
	gone   chan error // gets a value when there is no going on
}

func openKeeper(ctx context.Context, s settings) (*keeper, error) {
	k := &keeper{gone: make(chan error, 1)}
	if s.alone {
		st, err := store.Open(s.root)
		if errors.Is(err, store.ErrLocked) {
			err = fmt.Errorf("%w: an engine runs", err)
		}
		if err != nil {
			return nil, err
		}
		k.Keeper, k.end = keep.Direct{Store: st, Config: s.config, HostDirs: s.hostDirs()}, func() {
			// What the cache let go; there is no engine to do it.
			if _, err := st.GC(context.WithoutCancel(ctx)); err != nil {
				log.Print(err)
			}
			st.Close()
		}
		return k, nil
	}
	// It is not started from here: it would share this process's mounts.
	k.engine = keep.NewEngine(ondemand.Engine(s.root, s.run).Connect)
	k.Keeper = k.engine
	return k, k.attach(ctx)
}

func (k *keeper) close() { k.end() }

func (k *keeper) attach(ctx context.Context) (err error) {
	attached, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k.end = cancel
	k.lost, err = k.engine.Attach(attached)
	if err != nil {
		cancel()
	}
	return err
}

// watch goes on with the next engine when one has ended, if there is something
// to go on with. What is held is held again: the last of it may not have
// reached the disk.
func (k *keeper) watch(ctx context.Context, b *build.Builder, at *counting) {
	if k.engine == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.lost:
		}
		if at.open.Load() == 0 {
			k.gone <- nil
			return
		}
		log.Print("the engine is gone: waiting for the next one")
		if err := k.again(ctx, b); err != nil {
			k.gone <- fmt.Errorf("the engine is gone: %w", err)
			return
		}
	}
}

func (k *keeper) again(ctx context.Context, b *build.Builder) (err error) {
	k.end()
	for deadline := time.Now().Add(backAgain); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = k.attach(ctx); err == nil {
			return b.Renew(ctx)
		}
	}
	return err
}
