// Command cale-build is the builder: BuildKit's solver on Cale's image store
// and runtime. It starts on demand and ends when it has long had nothing to do;
// a build's command line runs in it too, so that cale itself stays small.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/spf13/pflag"
)

// version and commit are set by the build.
var (
	version = "0.1.0-dev"
	commit  = ""
)

func main() {
	log.SetOutput(quietHTTP2{os.Stderr})
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	// The second signal ends the command whatever it is doing.
	context.AfterFunc(ctx, stop)
	if len(os.Args) > 1 && os.Args[1] == "build" {
		os.Exit(buildCommand(ctx, os.Args[2:]))
	}
	err := run(ctx, os.Args[1:])
	if err == nil || isHelp(err) {
		return
	}
	fmt.Fprintln(os.Stderr, "cale-build:", err)
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("what is to be done? build, serve, or -v for the version")
	}
	switch args[0] {
	case "serve":
		return serve(ctx, args[1:])
	case "-v", "--version":
		fmt.Printf("cale-build version %s, build %s\n", version, commit)
		return nil
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// quietHTTP2 is a log without what the library of HTTP/2 writes there of its own
// accord: that a connection ended is no news when a build has.
type quietHTTP2 struct{ w io.Writer }

func (q quietHTTP2) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("http2: ")) {
		return len(line), nil
	}
	return q.w.Write(line)
}

func isHelp(err error) bool { return errors.Is(err, pflag.ErrHelp) }

func env(key, other string) string {
	if v := os.Getenv(key); v != "" {
		return v
	}
	return other
}
