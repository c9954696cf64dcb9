package cli

import (
	"context"
	"errors"
	"fmt"

	"cale/cli/option"
	"cale/client"

	"github.com/spf13/cobra"
)

func isNotFound(err error) bool { return client.IsNotFound(err) }

func (a *App) execCommand() *cobra.Command {
	c := &cobra.Command{Use: "exec [OPTIONS] CONTAINER COMMAND [ARG...]", Args: atLeast(2), ValidArgsFunction: a.completeContainers(true)}
	f := c.Flags()
	f.SetInterspersed(false)
	var e client.ExecConfig
	var interactive bool
	f.BoolVarP(&e.Detach, "detach", "d", false, "Detached mode: run command in the background")
	f.StringVar(&e.DetachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	env := list(f, "env", "e", "", "Set environment variables")
	envFile := list(f, "env-file", "", "", "Read in a file of environment variables")
	f.BoolVarP(&interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.BoolVar(&e.Privileged, "privileged", false, "Give extended privileges to the command")
	f.BoolVarP(&e.Tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.StringVarP(&e.User, "user", "u", "", "Username or UID (format: \"<name|uid>[:<group|gid>]\")")
	f.StringVarP(&e.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if e.Env, err = option.Env(envFile.Values, env.Values); err != nil {
			return err
		}
		e.Cmd = args[1:]
		if !e.Detach {
			e.AttachStdin, e.AttachStdout, e.AttachStderr = interactive, true, true
		}
		return a.exec(cmd.Context(), args[0], e)
	}
	return c
}

// exec runs a process in a container; its exit code comes back as an Exit.
func (a *App) exec(ctx context.Context, container string, e client.ExecConfig) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	if err := a.checkTerminal(e.AttachStdin, e.Tty); err != nil {
		return err
	}
	if _, err := option.DetachKeys(e.DetachKeys); err != nil {
		return err
	}
	if w, h, ok := terminalSize(a.Out); ok && e.Tty {
		e.ConsoleSize = &[2]uint{h, w}
	}
	id, err := api.ExecCreate(ctx, container, e)
	if err != nil {
		return err
	}
	if id == "" {
		return errors.New("the engine gave no exec ID")
	}
	if e.Detach {
		return execFailure(api.ExecStart(ctx, id, e.Tty))
	}
	stream, err := api.ExecAttach(ctx, id, e.Tty, e.ConsoleSize)
	if err != nil {
		return execFailure(err)
	}
	defer stream.Close()
	s := &session{stream: stream, tty: e.Tty, keys: e.DetachKeys, out: a.Out, err: a.Err}
	if e.AttachStdin {
		s.in = a.In
	}
	if e.Tty {
		stop := a.followSize(ctx, func(ctx context.Context, w, h uint) error { return api.ExecResize(ctx, id, w, h) })
		defer stop()
	}
	if err := s.run(ctx); errors.Is(err, option.ErrDetached) {
		fmt.Fprintln(a.Err, "read escape sequence")
		return nil
	} else if client.IsLost(err) {
		return errExecLost
	} else if err != nil {
		return err
	}
	state, err := api.ExecInspect(ctx, id)
	switch {
	case client.IsLost(err):
		return errExecLost
	case isNotFound(err):
		// The engine that knew of it has ended, or the container has.
		if d, err := api.ContainerInspect(ctx, container); err == nil && d.State.Running {
			return errExecLost
		}
		return &Exit{Code: 137, Message: "the container ended, and the command with it"}
	case err != nil:
		return err
	case state.Running: // another engine has found it
		return errExecLost
	}
	if state.ExitCode != 0 {
		return &Exit{Code: state.ExitCode}
	}
	return nil
}

// errExecLost is an engine that ended while a command ran in a container.
var errExecLost = &Exit{Code: 125, Message: "the engine ended; the command goes on in the container, but its output and exit code are lost"}

// execFailure is startFailure, but what is neither 126 nor 127 is 1.
func execFailure(err error) error {
	if err == nil {
		return nil
	}
	var e *Exit
	if f := startFailure(err); errors.As(f, &e) && e.Code != 125 {
		return f
	}
	return err
}
