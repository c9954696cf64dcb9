package cli

import (
	"errors"
	"fmt"

	"cale/cli/option"
	"cale/client"

	"github.com/spf13/cobra"
)

func (a *App) startCommand() *cobra.Command {
	c := &cobra.Command{Use: "start [OPTIONS] CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(false)}
	f := c.Flags()
	attach := f.BoolP("attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	interactive := f.BoolP("interactive", "i", false, "Attach container's STDIN")
	keys := f.String("detach-keys", "", "Override the key sequence for detaching a container")
	checkpoint := f.String("checkpoint", "", "Restore from this checkpoint")
	dir := f.String("checkpoint-dir", "", checkpointDirUsage)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		api, err := a.client()
		if err != nil {
			return err
		}
		if *checkpoint != "" && len(args) > 1 {
			return errors.New("you cannot restore multiple containers at once")
		}
		if !*attach && !*interactive {
			return a.each(args, func(id string) (string, error) {
				err := api.ContainerStart(ctx, id, client.Start{Checkpoint: *checkpoint, CheckpointDir: *dir})
				if client.IsNotModified(err) {
					err = nil // it runs, as was wanted
				}
				return id, err
			})
		}
		if len(args) > 1 {
			return errors.New("you cannot start and attach multiple containers at once")
		}
		d, err := api.ContainerInspect(ctx, args[0])
		if err != nil {
			return err
		}
		stdin := *interactive && d.Config.OpenStdin
		if err := a.checkTerminal(stdin, d.Config.Tty); err != nil {
			return err
		}
		// Signals belong to the terminal when there is one.
		return a.foreground(ctx, foreground{api: api, id: d.ID, tty: d.Config.Tty, stdin: stdin, stdout: true, stderr: true, keys: *keys,
			sigProxy: !d.Config.Tty, autoRemove: d.HostConfig.AutoRemove, start: !d.State.Running, checkpoint: *checkpoint, dir: *dir})
	}
	return c
}

func (a *App) attachCommand() *cobra.Command {
	c := &cobra.Command{Use: "attach [OPTIONS] CONTAINER", Args: exactly(1), ValidArgsFunction: a.completeContainers(true)}
	f := c.Flags()
	noStdin := f.Bool("no-stdin", false, "Do not attach STDIN")
	sigProxy := f.Bool("sig-proxy", true, "Proxy all received signals to the process")
	keys := f.String("detach-keys", "", "Override the key sequence for detaching a container")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		api, err := a.client()
		if err != nil {
			return err
		}
		d, err := api.ContainerInspect(ctx, args[0])
		if err != nil {
			return err
		}
		switch {
		case !d.State.Running:
			return errors.New("you cannot attach to a stopped container, start it first")
		case d.State.Paused:
			return errors.New("you cannot attach to a paused container, unpause it first")
		case d.State.Restarting:
			return errors.New("you cannot attach to a restarting container, wait until it is running")
		}
		if _, err := option.DetachKeys(*keys); err != nil {
			return err
		}
		stdin := !*noStdin && d.Config.OpenStdin
		if err := a.checkTerminal(stdin, d.Config.Tty); err != nil {
			return err
		}
		if w, h, ok := terminalSize(a.Out); ok && d.Config.Tty {
			// A change of size makes a program that draws the screen do so
			// again.
			api.ContainerResize(ctx, d.ID, w, h+1)
		}
		return a.foreground(ctx, foreground{api: api, id: d.ID, tty: d.Config.Tty, stdin: stdin, stdout: true, stderr: true, keys: *keys,
			sigProxy: *sigProxy && !d.Config.Tty})
	}
	return c
}

func (a *App) rmCommand() *cobra.Command {
	c := &cobra.Command{Use: "rm [OPTIONS] CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(false)}
	f := c.Flags()
	force := f.BoolP("force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	volumes := f.BoolP("volumes", "v", false, "Remove anonymous volumes associated with the container")
	link := f.BoolP("link", "l", false, "Remove the specified link")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.eachAtOnce(args, func(id string) (string, error) {
			if id == "" || id == "/" {
				return "", fmt.Errorf("invalid container name or ID: value is empty")
			}
			err := api.ContainerRemove(cmd.Context(), id, *force, *volumes, *link)
			if *force && isNotFound(err) {
				err = harmless{err}
			}
			return id, err
		})
	}
	return c
}
