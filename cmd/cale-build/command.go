package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"cale/build/command"
	"cale/ondemand"
)

// buildCommand is cale build.
func buildCommand(ctx context.Context, args []string) int {
	err := command.Run(ctx, args, command.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, connect)
	switch {
	case err == nil, isHelp(err):
		return 0
	case errors.Is(err, command.ErrFindings):
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "cale: the build was cancelled")
		return 130
	default:
		fmt.Fprintln(os.Stderr, "cale:", err)
	}
	return 1
}

// connect is a command.Builder: the builder of this machine, which is started,
// and before it the engine, if they do not run.
func connect(ctx context.Context, root, run string, alone bool) (func(context.Context) (net.Conn, error), func() error, error) {
	if alone {
		return nil, nil, errors.New("--daemonless is not built yet in Cale")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, nil, err
	}
	if run, err = filepath.Abs(run); err != nil {
		return nil, nil, err
	}
	b := ondemand.Builder(root, run)
	dial := func(ctx context.Context) (net.Conn, error) {
		if c, err := b.Connect(ctx); err == nil || !ondemand.NotRunning(err) {
			return c, err
		}
		c, err := ondemand.Engine(root, run).Dial(ctx)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return b.Dial(ctx)
	}
	return dial, func() error { return nil }, nil
}
