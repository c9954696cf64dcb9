package keep

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"cale/image"
	"cale/image/store"
)

// Engine is a Keeper behind the engine's socket.
type Engine struct {
	http http.Client
	dial func(context.Context) (net.Conn, error)
}

// NewEngine speaks with the engine that dial connects to, and starts if need
// be.
func NewEngine(dial func(context.Context) (net.Conn, error)) *Engine {
	e := &Engine{dial: dial}
	e.http.Transport = &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConnsPerHost: 4, DisableCompression: true,
	}
	return e
}

// Attach keeps the engine from ending for want of work, until ctx ends. It
// returns a channel that is closed when the engine is gone.
func (e *Engine) Attach(ctx context.Context) (<-chan struct{}, error) {
	r, err := e.do(ctx, http.MethodGet, "attach", nil)
	if err != nil {
		return nil, err
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer r.Body.Close()
		_, _ = io.Copy(io.Discard, r.Body)
	}()
	return gone, nil
}

// Held implements Keeper.
func (e *Engine) Held(ctx context.Context) (c Content, err error) {
	return c, e.get(ctx, "held", &c)
}

// Hold implements Keeper.
func (e *Engine) Hold(ctx context.Context, c Content) error { return e.post(ctx, "hold", c) }

// Release implements Keeper.
func (e *Engine) Release(ctx context.Context, c Content) error { return e.post(ctx, "release", c) }

// Added implements Keeper.
func (e *Engine) Added(ctx context.Context, c Content, sync bool) error {
	if sync {
		return e.post(ctx, "added?sync=1", c)
	}
	return e.post(ctx, "added", c)
}

// Restore implements Keeper.
func (e *Engine) Restore(ctx context.Context, d image.Digest) error { return e.post(ctx, "restore", d) }

// Judge implements Keeper.
func (e *Engine) Judge(ctx context.Context, name string, d image.Digest) error {
	return e.post(ctx, "judge", struct {
		Name   string
		Digest image.Digest
	}{name, d})
}

// Names implements Keeper.
func (e *Engine) Names(ctx context.Context) (out []store.Name, err error) {
	return out, e.get(ctx, "names", &out)
}

// SetName implements Keeper.
func (e *Engine) SetName(ctx context.Context, name string, target image.Descriptor) error {
	return e.post(ctx, "name", struct {
		Name   string
		Target image.Descriptor
	}{name, target})
}

func (e *Engine) get(ctx context.Context, what string, v any) error {
	r, err := e.do(ctx, http.MethodGet, what, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(v)
}

func (e *Engine) post(ctx context.Context, what string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r, err := e.do(ctx, http.MethodPost, what, raw)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, r.Body)
	return r.Body.Close()
}

// do asks the engine; an answer of 400 and more is an error.
func (e *Engine) do(ctx context.Context, method, what string, body []byte) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, method, "http://engine/cale/build/"+what, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", "application/json")
	r, err := e.http.Do(q)
	if err != nil {
		return nil, fmt.Errorf("ask the engine: %w", errors.Unwrap(err))
	}
	if r.StatusCode < 400 {
		return r, nil
	}
	defer r.Body.Close()
	var m struct{ Message string }
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&m); err != nil || m.Message == "" {
		m.Message = r.Status
	}
	return nil, fmt.Errorf("the engine refuses: %s", m.Message)
}
