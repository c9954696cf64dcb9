package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	apibuild "cale/api/build"
	"cale/build/command"
	"cale/build/instance"
	"cale/ondemand"
)

// buildCommand is cale build.
func buildCommand(ctx context.Context, args []string) int {
	c, err := command.Parse(args, os.Stdout, command.Here)
	if err == nil && c.Alone() {
		err = ownMounts(ctx, settings{alone: true})
	}
	if err == nil {
		err = c.Prepare(os.Stdin)
	}
	if err == nil {
		err = c.Run(ctx, command.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, connect)
	}
	return status(ctx, err, os.Stderr)
}

// status says how a build ended, and is its exit status.
func status(ctx context.Context, err error, stderr io.Writer) int {
	switch {
	case err == nil, isHelp(err):
		return 0
	case errors.Is(err, command.ErrFindings):
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "cale: the build was cancelled")
		return 130
	default:
		fmt.Fprintln(stderr, "cale:", err)
	}
	return 1
}

// connect is a command.Builder: the builder of this machine, which is started,
// and before it the engine, if they do not run.
func connect(ctx context.Context, root, run string, alone bool) (func(context.Context) (net.Conn, error), func() error, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, nil, err
	}
	if run, err = filepath.Abs(run); err != nil {
		return nil, nil, err
	}
	if alone {
		return here(ctx, settings{root: root, run: run, config: env("CALE_CONFIG", "/etc/cale")})
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		// The engine first: it must not be started from the builder, and may
		// be what serves the registry of a base image.
		c, err := ondemand.Engine(root, run).Dial(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to the engine: %w", err)
		}
		defer c.Close()
		return ondemand.Builder(root, run).Dial(ctx)
	}
	// Once here, where what is wrong with it is said in its own words: gRPC
	// wraps it into three of its own.
	c, err := dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	_ = c.Close()
	return dial, func() error { return nil }, nil
}

// here opens a builder in this process. An engine that runs keeps the image
// store; without one this process has it for itself.
func here(ctx context.Context, s settings) (func(context.Context) (net.Conn, error), func() error, error) {
	if !hasOwnMounts {
		return nil, nil, errors.New("a builder needs a mount namespace of its own, and this process has none")
	}
	if err := os.MkdirAll(filepath.Join(s.run, "build"), 0o700); err != nil {
		return nil, nil, err
	}
	lock, err := instance.Lock(s.run)
	if errors.Is(err, instance.ErrAlive) {
		err = fmt.Errorf("%w: leave --daemonless out", err)
	}
	if err != nil {
		return nil, nil, err
	}
	// Not before: what the command line itself writes has the user's modes.
	exactModes()
	logrus.SetLevel(logrus.ErrorLevel)
	k, err := keeperHere(ctx, s)
	if err != nil {
		lock.Close()
		return nil, nil, err
	}
	b, err := open(ctx, s, k)
	if err != nil {
		k.close()
		lock.Close()
		return nil, nil, err
	}
	split := apibuild.NewSplit(nil)
	go func() { _ = b.Server().Serve(split.HTTP2()) }()
	docker := &http.Server{Handler: apibuild.NewServer(split, b.Sessions(), b.Mounts())}
	go func() { _ = docker.Serve(split.HTTP1()) }()
	return split.Dial, func() error {
		err := errors.Join(docker.Close(), b.Close())
		k.close()
		return errors.Join(err, lock.Close())
	}, nil
}

// keeperHere opens the image store by the engine, or, if none runs, itself.
func keeperHere(ctx context.Context, s settings) (*keeper, error) {
	for try := 0; ; try++ {
		c, err := ondemand.Engine(s.root, s.run).Connect(ctx)
		if s.alone = err != nil; err == nil {
			c.Close()
		}
		k, err := openKeeper(ctx, s)
		ending := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)
		if s.alone || !ending || try == 100 {
			return k, err
		}
		// An engine that ends at this moment still takes connections.
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
