// Command cale is the command line of Cale's engine.
package main

import (
	"context"
	"os"
	"os/signal"

	"cale/cli"

	"golang.org/x/sys/unix"
)

// version and commit are set by the build.
var (
	version = "0.1.0-dev"
	commit  = ""
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	// The second signal ends the command whatever it is doing.
	context.AfterFunc(ctx, stop)
	cli.Version, cli.Commit = version, commit
	code := cli.Main(ctx, &cli.App{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:])
	os.Exit(code)
}
