package cli

import (
	"fmt"
	"sort"
	"strings"

	"cale/cli/format"
	"cale/client"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// stopLike makes stop and restart.
func (a *App) stopLike(verb string) *cobra.Command {
	c := &cobra.Command{Use: verb + " [OPTIONS] CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(verb == "stop")}
	f := c.Flags()
	signal := f.StringP("signal", "s", "", "Signal to send to the container")
	seconds := f.IntP("timeout", "t", 0, "Seconds to wait before killing the container")
	f.IntVar(seconds, "time", 0, "Seconds to wait before killing the container")
	f.MarkHidden("time")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		var wait *int
		if f.Changed("timeout") || f.Changed("time") {
			wait = seconds
		}
		return a.eachAtOnce(args, func(id string) (string, error) {
			err := api.ContainerStop(cmd.Context(), verb, id, *signal, wait)
			if client.IsNotModified(err) {
				err = nil // it is stopped, as was wanted
			}
			return id, err
		})
	}
	return c
}

func (a *App) stopCommand() *cobra.Command    { return a.stopLike("stop") }
func (a *App) restartCommand() *cobra.Command { return a.stopLike("restart") }

func (a *App) killCommand() *cobra.Command {
	c := &cobra.Command{Use: "kill [OPTIONS] CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(true)}
	signal := c.Flags().StringP("signal", "s", "", "Signal to send to the container (default KILL)")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.eachAtOnce(args, func(id string) (string, error) { return id, api.ContainerKill(cmd.Context(), id, *signal) })
	}
	c.RegisterFlagCompletionFunc("signal", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for s := unix.Signal(1); s < 32; s++ {
			names = append(names, unix.SignalName(s))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

// simple makes pause and unpause.
func (a *App) simple(verb string) *cobra.Command {
	c := &cobra.Command{Use: verb + " CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(true)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.eachAtOnce(args, func(id string) (string, error) { return id, api.ContainerPost(cmd.Context(), id, verb) })
	}
	return c
}

func (a *App) pauseCommand() *cobra.Command   { return a.simple("pause") }
func (a *App) unpauseCommand() *cobra.Command { return a.simple("unpause") }

func (a *App) waitCommand() *cobra.Command {
	c := &cobra.Command{Use: "wait CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(true)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.eachAtOnce(args, func(id string) (string, error) {
			e, err := api.ContainerWait(cmd.Context(), id, "", nil)
			if err != nil {
				return "", err
			}
			return fmt.Sprint(e.StatusCode), nil
		})
	}
	return c
}

func (a *App) renameCommand() *cobra.Command {
	c := &cobra.Command{Use: "rename CONTAINER NEW_NAME", Args: exactly(2), ValidArgsFunction: a.completeContainers(false)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return api.ContainerRename(cmd.Context(), args[0], strings.TrimSpace(args[1]))
	}
	return c
}

func (a *App) topCommand() *cobra.Command {
	c := &cobra.Command{Use: "top CONTAINER [ps OPTIONS]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(true)}
	c.Flags().SetInterspersed(false)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		t, err := api.ContainerTop(cmd.Context(), args[0], strings.Join(args[1:], " "))
		if err != nil {
			return err
		}
		return format.Processes(a.Out, append([][]string{t.Titles}, t.Processes...))
	}
	return c
}

func (a *App) portCommand() *cobra.Command {
	c := &cobra.Command{Use: "port CONTAINER [PRIVATE_PORT[/PROTO]]", Args: between(1, 2), ValidArgsFunction: a.completeContainers(true)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		d, err := api.ContainerInspect(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if len(args) == 2 {
			port := args[1]
			if !strings.Contains(port, "/") {
				port += "/tcp"
			}
			bindings := d.NetworkSettings.Ports[port]
			if len(bindings) == 0 {
				return fmt.Errorf("no public port '%s' published for %s", port, args[0])
			}
			for _, b := range bindings {
				fmt.Fprintln(a.Out, address(b))
			}
			return nil
		}
		var lines []string
		for port, bindings := range d.NetworkSettings.Ports {
			for _, b := range bindings {
				lines = append(lines, port+" -> "+address(b))
			}
		}
		sort.Strings(lines)
		for _, l := range lines {
			fmt.Fprintln(a.Out, l)
		}
		return nil
	}
	return c
}

func address(b client.PortBinding) string {
	if strings.Contains(b.HostIP, ":") {
		return "[" + b.HostIP + "]:" + b.HostPort
	}
	return b.HostIP + ":" + b.HostPort
}

func (a *App) diffCommand() *cobra.Command {
	c := &cobra.Command{Use: "diff CONTAINER", Args: exactly(1), ValidArgsFunction: a.completeContainers(false)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		changes, err := api.ContainerDiff(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		for _, ch := range changes {
			kind := "?"
			if ch.Kind >= 0 && ch.Kind < 3 {
				kind = "CAD"[ch.Kind : ch.Kind+1]
			}
			fmt.Fprintln(a.Out, kind, ch.Path)
		}
		return nil
	}
	return c
}
