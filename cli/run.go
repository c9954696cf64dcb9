package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"cale/cli/format"
	"cale/cli/option"
	"cale/client"

	"github.com/spf13/cobra"
)

func (a *App) createCommand() *cobra.Command {
	c := &cobra.Command{Use: "create [OPTIONS] IMAGE [COMMAND] [ARG...]", Args: atLeast(1)}
	flags := addCreateFlags(c.Flags())
	c.ValidArgsFunction = a.completeImages
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		conf, host, networking, err := flags.build(a, args[0], args[1:])
		if err != nil {
			return failed125(err)
		}
		id, err := a.create(cmd.Context(), api, flags, conf, host, networking)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.Out, id)
		return nil
	}
	return c
}

// create makes the container, and pulls its image when it is missing and may be
// pulled.
func (a *App) create(ctx context.Context, api *client.Client, f *createFlags, conf *client.Config, host *client.HostConfig, networking *client.NetworkingConfig) (id string, err error) {
	if f.cidFile != "" {
		file, err := openCIDFile(f.cidFile)
		if err != nil {
			return "", err
		}
		host.ContainerIDFile = f.cidFile
		defer func() {
			if err == nil {
				_, err = file.WriteString(id)
			} else {
				os.Remove(f.cidFile)
			}
			err = errors.Join(err, file.Close())
		}()
	}
	pull := func() error {
		out := a.Err
		if f.quiet {
			out = io.Discard
		}
		return a.pull(ctx, api, conf.Image, f.platform, out)
	}
	if f.pull == "always" {
		if err := pull(); err != nil {
			return "", err
		}
	}
	created, err := api.ContainerCreate(ctx, f.name, f.platform, conf, host, networking)
	if missingImage(err) && (f.pull == "missing" || f.pull == "") {
		if !f.quiet {
			fmt.Fprintf(a.Err, "Unable to find image '%s' locally\n", withTag(conf.Image))
		}
		if err := pull(); err != nil {
			return "", err
		}
		created, err = api.ContainerCreate(ctx, f.name, f.platform, conf, host, networking)
	}
	if err != nil {
		return "", err
	}
	for _, w := range created.Warnings {
		fmt.Fprintf(a.Err, "WARNING: %s\n", w)
	}
	return created.ID, nil
}

// missingImage tells a container that cannot be created for want of its image
// from one whose network or volume is missing.
func missingImage(err error) bool {
	return client.IsNotFound(err) && strings.Contains(strings.ToLower(err.Error()), "no such image")
}

func (a *App) runCommand() *cobra.Command {
	c := &cobra.Command{Use: "run [OPTIONS] IMAGE [COMMAND] [ARG...]", Args: atLeast(1)}
	var o runOptions
	f := c.Flags()
	o.create = addCreateFlags(f)
	f.BoolVarP(&o.detach, "detach", "d", false, "Run container in background and print container ID")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	f.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	c.ValidArgsFunction = a.completeImages
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return a.runContainer(cmd.Context(), o, args[0], args[1:])
	}
	return c
}

type runOptions struct {
	create           *createFlags
	detach, sigProxy bool
	detachKeys       string
}

// runContainer creates and starts a container and, in the foreground, stays
// with it until it ends. Failures before it runs are exit code 125, or 127 and
// 126 for a command that does not exist or cannot be executed.
func (a *App) runContainer(ctx context.Context, o runOptions, image string, command []string) error {
	api, err := a.client()
	if err != nil {
		return failed125(err)
	}
	conf, host, networking, err := o.create.build(a, image, command)
	if err != nil {
		return failed125(err)
	}
	if o.detach {
		if len(o.create.attach.Values) > 0 {
			return failed125(errors.New("conflicting options: cannot specify both --attach and --detach"))
		}
		conf.AttachStdin, conf.AttachStdout, conf.AttachStderr, conf.StdinOnce = false, false, false, false
	}
	if err := a.checkTerminal(conf.AttachStdin, conf.Tty); err != nil {
		return err
	}
	if _, err := option.DetachKeys(o.detachKeys); err != nil {
		return failed125(err)
	}
	id, err := a.create(ctx, api, o.create, conf, host, networking)
	if err != nil {
		return failed125(err)
	}
	if o.detach {
		if err := api.ContainerStart(ctx, id, client.Start{DetachKeys: o.detachKeys}); err != nil {
			return startFailure(err)
		}
		fmt.Fprintln(a.Out, id)
		return nil
	}
	fg := foreground{api: api, id: id, tty: conf.Tty, stdin: conf.AttachStdin, stdout: conf.AttachStdout, stderr: conf.AttachStderr,
		keys: o.detachKeys, sigProxy: o.sigProxy, autoRemove: host.AutoRemove, start: true}
	return a.foreground(ctx, fg)
}

// foreground is a container that the command stays with.
type foreground struct {
	api                   *client.Client
	id                    string
	tty                   bool
	stdin, stdout, stderr bool
	keys                  string
	sigProxy              bool
	autoRemove            bool
	start                 bool   // start it once attached
	checkpoint, dir       string // what it goes on from, as client.Start has it
	logs                  bool
}

// foreground attaches to a container, starts it if asked, passes signals and
// the terminal's size on, and returns the container's exit code as an Exit.
func (a *App) foreground(ctx context.Context, f foreground) error {
	attached := f.stdin || f.stdout || f.stderr
	var forced <-chan struct{}
	if f.sigProxy {
		// Signals are the container's now, and must not end our requests.
		ctx = context.WithoutCancel(ctx)
		var stop func()
		forced, stop = proxySignals(ctx, f.api, f.id)
		defer stop()
	}
	var s *session
	if attached {
		stream, err := f.api.ContainerAttach(ctx, f.id, client.Attach{Stdin: f.stdin, Stdout: f.stdout, Stderr: f.stderr, Logs: f.logs, DetachKeys: f.keys})
		if err != nil {
			return failed125(err)
		}
		defer stream.Close()
		s = &session{stream: stream, tty: f.tty, keys: f.keys, forced: forced}
		if f.stdin {
			s.in = a.In
		}
		if f.stdout {
			s.out = a.Out
		}
		if f.stderr {
			s.err = a.Err
		}
	}
	exit, err := a.waitExit(ctx, f)
	if err != nil {
		return failed125(err)
	}
	if f.start {
		if err := f.api.ContainerStart(ctx, f.id, client.Start{DetachKeys: f.keys, Checkpoint: f.checkpoint, CheckpointDir: f.dir}); err != nil {
			if f.autoRemove {
				<-exit // gone before we say why
			}
			return startFailure(err)
		}
	}
	if !attached {
		fmt.Fprintln(a.Out, f.id)
	}
	if f.tty {
		stop := a.followSize(ctx, func(ctx context.Context, w, h uint) error { return f.api.ContainerResize(ctx, f.id, w, h) })
		defer stop()
	}
	if s != nil {
		err := s.run(ctx)
		if errors.Is(err, option.ErrDetached) {
			fmt.Fprintln(a.Err, "read escape sequence")
			return nil
		}
		if err != nil {
			return f.lost(err)
		}
	}
	select {
	case r := <-exit:
		return f.lost(r)
	case <-forced:
		return errForced
	}
}

// lost says of an engine that ended what its end means: nothing to the
// container. Other errors stay as they are.
func (f *foreground) lost(err error) error {
	if !client.IsLost(err) {
		return err
	}
	return &Exit{Code: 125, Message: "the engine ended; the container goes on: cale attach " + format.ShortID(f.id)}
}

// waitExit begins to wait for a container's end before it is started, so that
// no end is missed; the channel gives the exit code as an error, nil for 0.
func (a *App) waitExit(ctx context.Context, f foreground) (<-chan error, error) {
	condition := "next-exit"
	if f.autoRemove {
		condition = "removed"
	} else if !f.start {
		condition = "not-running"
	}
	result := make(chan error, 1)
	registered := make(chan error, 1)
	go func() {
		e, err := f.api.ContainerWait(ctx, f.id, condition, func() { registered <- nil })
		switch {
		case err != nil:
			registered <- err
			result <- fmt.Errorf("waiting for the container's end: %w", err)
		case e.Error != nil && e.Error.Message != "":
			result <- &Exit{Code: 125, Message: "waiting for the container's end: " + e.Error.Message}
		case e.StatusCode != 0:
			result <- &Exit{Code: int(e.StatusCode)}
		default:
			result <- nil
		}
	}()
	return result, <-registered
}

// checkTerminal refuses a terminal for the container when our input is none.
func (a *App) checkTerminal(stdin, tty bool) error {
	if !stdin || !tty {
		return nil
	}
	if _, ok := terminal(a.In); !ok {
		return errors.New("the input device is not a TTY")
	}
	return nil
}

func failed125(err error) error {
	var e *Exit
	if errors.Is(err, context.Canceled) || errors.As(err, &e) {
		return err
	}
	return &Exit{Code: 125, Message: strings.TrimSpace(err.Error())}
}

// startFailure gives the exit code of a process that could not be started: 127
// for a command that does not exist, 126 for one that cannot be executed, else
// 125.
func startFailure(err error) error {
	code := 125
	text := err.Error()
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		code = 127
	case strings.Contains(text, "permission denied"), strings.Contains(text, "is a directory"), strings.Contains(text, "exec format error"):
		code = 126
	}
	var e *client.Error
	if !errors.As(err, &e) {
		return failed125(err)
	}
	return &Exit{Code: code, Message: strings.TrimSpace(text)}
}
