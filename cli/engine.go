package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"

	"cale/ondemand"
)

// dialEngine connects to this machine's engine and starts it when nothing
// listens.
func (a *App) dialEngine(ctx context.Context) (net.Conn, error) {
	root, err := filepath.Abs(a.root)
	if err != nil {
		return nil, err
	}
	p := ondemand.Engine(root, a.run)
	p.Say = a.Err
	c, err := p.Dial(ctx)
	var op *net.OpError
	if errors.As(err, &op) {
		return nil, explain("unix://"+p.Socket, err)
	}
	return c, err
}

func explainDial(host string, dial func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx)
		return c, explain(host, err)
	}
}

// explain words a failed connection for the user.
func explain(host string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("permission denied while connecting to the engine at %s", host)
	case ondemand.NotRunning(err):
		return fmt.Errorf("cannot connect to the engine at %s: is it running?", host)
	}
	return fmt.Errorf("cannot connect to the engine at %s: %w", host, err)
}
