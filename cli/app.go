// Package cli is the command line cale: Docker's verbs, flags, output and exit
// codes, over the engine's API. It links no engine and builds only the command
// that was asked for, since it must be gone in a few milliseconds.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"cale/client"

	"golang.org/x/term"
)

// Version and Commit are the build's; the program sets them.
var Version, Commit string

// App is one invocation: its streams, where the engine is, and the client.
type App struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer

	host string // -H; empty means the engine of run, started on demand
	root string
	run  string
	args []string // the invocation's arguments, without the program's name

	api *client.Client
}

// Exit is an error that only carries an exit code; whatever there was to say
// has been said when Message is empty.
type Exit struct {
	Code    int
	Message string
}

func (e *Exit) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Message
}

// Main runs one command line and returns its exit code.
func Main(ctx context.Context, a *App, args []string) int {
	a.args = args
	a.run = envOr("CALE_RUN", "/run/cale")
	a.root = envOr("CALE_ROOT", "/var/lib/cale")
	a.host = os.Getenv("CALE_HOST")
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	err := root.ExecuteContext(ctx)
	if a.api != nil {
		a.api.Close()
	}
	return a.report(err)
}

// report prints an error as one line and returns the exit code.
func (a *App) report(err error) int {
	if err == nil {
		return 0
	}
	var e *Exit
	if errors.As(err, &e) {
		if e.Message != "" {
			fmt.Fprintf(a.Err, "cale: %s\n", e.Message)
		}
		return e.Code
	}
	if errors.Is(err, context.Canceled) {
		return 130
	}
	fmt.Fprintf(a.Err, "cale: %s\n", strings.TrimSpace(err.Error()))
	return 1
}

func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// client returns the engine's client. Without -H the engine is this machine's
// and is started when it does not run.
func (a *App) client() (*client.Client, error) {
	if a.api != nil {
		return a.api, nil
	}
	o := client.Options{Host: a.host}
	if o.Host == "" {
		run, err := filepath.Abs(a.run)
		if err != nil {
			return nil, err
		}
		a.run = run
		socket := filepath.Join(run, "docker.sock")
		if len(socket) > 107 {
			return nil, fmt.Errorf("socket %s: the path is longer than the 107 bytes the kernel takes: choose a shorter CALE_RUN, or --run", socket)
		}
		o.Host = "unix://" + socket
		o.Dial = a.dialEngine
	}
	c, err := client.New(o)
	if err != nil {
		return nil, err
	}
	if a.host != "" {
		dial, _ := client.Dialer(a.host)
		c, err = client.New(client.Options{Host: a.host, Dial: explainDial(a.host, dial)})
	}
	a.api = c
	return c, err
}

// each does f for every argument, one after the other; errors are printed as they come and make the exit code 1, and the
// other arguments are still done. What f returns is printed.
func (a *App) each(args []string, f func(string) (string, error)) error {
	failed := false
	for _, arg := range args {
		out, err := f(arg)
		if err != nil {
			if errors.Is(err, context.Canceled) {
				return err
			}
			fmt.Fprintf(a.Err, "cale: %s\n", strings.TrimSpace(err.Error()))
			if !errors.As(err, new(harmless)) {
				failed = true
			}
			continue
		}
		if out != "" {
			fmt.Fprintln(a.Out, out)
		}
	}
	if failed {
		return &Exit{Code: 1}
	}
	return nil
}

// harmless is an error that is said though what was wanted holds.
type harmless struct{ error }

// mostAtOnce bounds what eachAtOnce does at a time.
const mostAtOnce = 50

// eachAtOnce is each for what may take long and is nobody's order: all are begun, and told of in the order of the
// arguments. f prints nothing.
func (a *App) eachAtOnce(args []string, f func(string) (string, error)) error {
	type answer struct {
		out string
		err error
	}
	answers := make([]chan answer, len(args))
	free := make(chan struct{}, mostAtOnce)
	for i := range args {
		answers[i] = make(chan answer, 1)
	}
	go func() {
		for i, arg := range args {
			free <- struct{}{}
			go func() {
				out, err := f(arg)
				answers[i] <- answer{out, err}
				<-free
			}()
		}
	}()
	next := 0
	return a.each(args, func(string) (string, error) {
		got := <-answers[next]
		next++
		return got.out, got.err
	})
}

// terminal returns the descriptor of a stream that is a terminal.
func terminal(stream any) (int, bool) {
	f, ok := stream.(*os.File)
	if !ok {
		return -1, false
	}
	fd := int(f.Fd())
	return fd, term.IsTerminal(fd)
}

// confirm asks a yes/no question; no is the default.
func (a *App) confirm(question string) (bool, error) {
	fmt.Fprintf(a.Out, "%s [y/N] ", question)
	answer, err := readLine(a.In)
	if err != nil && err != io.EOF {
		return false, err
	}
	return strings.EqualFold(strings.TrimSpace(answer), "y"), nil
}

// readLine reads one line byte by byte, so that nothing after it is lost.
func readLine(r io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for len(line) < 64<<10 {
		n, err := r.Read(b[:])
		if n == 1 && b[0] == '\n' {
			break
		}
		line = append(line, b[:n]...)
		if err != nil {
			return string(line), err
		}
	}
	return string(line), nil
}
