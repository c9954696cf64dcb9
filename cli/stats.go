package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"cale/cli/format"
	"cale/client"

	"github.com/spf13/cobra"
)

func (a *App) statsCommand() *cobra.Command {
	c := &cobra.Command{Use: "stats [OPTIONS] [CONTAINER...]", ValidArgsFunction: a.completeContainers(true)}
	f := c.Flags()
	var o statsOptions
	f.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	f.StringVar(&o.layout, "format", "", formatUsage)
	f.BoolVar(&o.once, "no-stream", false, "Disable streaming stats and only pull the first result")
	f.BoolVar(&o.full, "no-trunc", false, "Do not truncate output")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.stats(cmd.Context(), api, o, args)
	}
	return c
}

type statsOptions struct {
	all, once, full bool
	layout          string
}

// meter is what is known of one container.
type meter struct {
	mu      sync.Mutex
	last    client.Stats // what it said last, and before that
	before  client.Stats
	err     error
	ready   bool
	running bool
}

// meters are the containers on show, in order.
type meters struct {
	mu    sync.Mutex
	order []string
	of    map[string]*meter
	wg    sync.WaitGroup // of those that still listen
}

// stats shows the use of resources until interrupted, or once. Without names
// it follows all containers, also those that come later.
func (a *App) stats(ctx context.Context, api *client.Client, o statsOptions, names []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ms := &meters{of: map[string]*meter{}}
	refresh := func() error {
		if len(names) > 0 {
			return nil
		}
		list, err := api.ContainerList(ctx, client.List{All: o.all})
		if err != nil {
			return err
		}
		there := map[string]bool{}
		for _, c := range list {
			id := format.ShortID(c.ID)
			there[id] = true
			ms.follow(ctx, api, id, !o.once)
		}
		ms.keep(there)
		return nil
	}
	for _, n := range names {
		ms.follow(ctx, api, n, !o.once)
	}
	if err := refresh(); err != nil {
		return err
	}
	if o.once {
		ms.wg.Wait()
		return a.showStats(ms, o, false)
	}
	_, _, screen := terminalSize(a.Out)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		if len(names) > 0 && ms.done() {
			return a.showStats(ms, o, screen)
		}
		select {
		case <-ctx.Done():
			if screen {
				fmt.Fprintln(a.Out)
			}
			return ctx.Err()
		case <-tick.C:
			if n%2 == 0 {
				if err := refresh(); err != nil {
					return err
				}
			}
			if err := a.showStats(ms, o, screen); err != nil {
				return err
			}
		}
	}
}

// follow takes a container up, unless it is followed already.
func (ms *meters) follow(ctx context.Context, api *client.Client, name string, stream bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.of[name] != nil {
		return
	}
	m := &meter{running: true}
	ms.of[name], ms.order = m, append(ms.order, name)
	ms.wg.Go(func() { m.collect(ctx, api, name, stream) })
}

// keep drops the containers that are gone.
func (ms *meters) keep(there map[string]bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	var order []string
	for _, name := range ms.order {
		if there[name] {
			order = append(order, name)
		} else {
			delete(ms.of, name)
		}
	}
	ms.order = order
}

// done tells that no container is followed any more.
func (ms *meters) done() bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for _, m := range ms.of {
		m.mu.Lock()
		running := m.running
		m.mu.Unlock()
		if running {
			return false
		}
	}
	return true
}

func (m *meter) collect(ctx context.Context, api *client.Client, name string, stream bool) {
	r, err := api.ContainerStats(ctx, name, stream)
	if err == nil {
		defer r.Close()
		d := json.NewDecoder(bufio.NewReader(r))
		for {
			var s client.Stats
			if err = d.Decode(&s); err != nil {
				break
			}
			m.mu.Lock()
			m.before, m.last, m.ready = m.last, s, true
			m.mu.Unlock()
			if !stream {
				break
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = false
	if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
		m.err = err
	}
}

func (a *App) showStats(ms *meters, o statsOptions, screen bool) error {
	ms.mu.Lock()
	var rows []format.Stats
	var errs []string
	for _, name := range ms.order {
		m := ms.of[name]
		m.mu.Lock()
		switch {
		case m.err != nil:
			errs = append(errs, m.err.Error())
		default:
			r := format.NoStats(name)
			if m.ready {
				r = format.NewStats(name, m.last)
			}
			if !o.full {
				r.ID = format.ShortID(r.ID)
			}
			rows = append(rows, r)
		}
		m.mu.Unlock()
	}
	ms.mu.Unlock()
	if len(errs) > 0 && len(rows) == 0 {
		return errors.New(strings.Join(errs, ", "))
	}
	shape := o.layout
	if shape == "" || shape == "table" {
		shape = format.StatsTable
	}
	var b strings.Builder
	if err := format.Write(&b, shape, format.StatsHeader, rows); err != nil {
		return err
	}
	text := b.String()
	if screen {
		text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
	}
	_, err := io.WriteString(a.Out, text)
	return err
}
