// Command cale is the command line of Cale's engine.
package main

import (
	"context"
	"os"
	"os/signal"

	"cale/cli"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	code := cli.Main(ctx, &cli.App{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}
