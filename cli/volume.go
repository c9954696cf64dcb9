package cli

import (
	"errors"
	"fmt"

	"cale/cli/format"
	"cale/cli/option"

	"github.com/spf13/cobra"
)

func volumeCommands() []entry {
	return []entry{
		{name: "create", short: "Create a volume", build: (*App).volumeCreateCommand},
		{name: "inspect", short: "Display detailed information on one or more volumes", build: inspectKind("volume")},
		{name: "ls", aliases: []string{"list"}, short: "List volumes", build: (*App).volumeListCommand},
		{name: "prune", short: "Remove unused local volumes", build: (*App).volumePruneCommand},
		{name: "rm", aliases: []string{"remove"}, short: "Remove one or more volumes", build: (*App).volumeRemoveCommand},
	}
}

func (a *App) volumeCreateCommand() *cobra.Command {
	c := &cobra.Command{Use: "create [OPTIONS] [VOLUME]", Args: between(0, 1)}
	f := c.Flags()
	driver := f.StringP("driver", "d", "local", "Specify volume driver name")
	labels := list(f, "label", "", "", "Set metadata for a volume")
	options := list(f, "opt", "o", "map", "Set driver specific options")
	name := f.String("name", "", "Specify volume name")
	f.MarkHidden("name")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			if *name != "" {
				return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
			}
			*name = args[0]
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		v, err := api.VolumeCreate(cmd.Context(), *name, *driver, option.Map(options.Values), option.Map(labels.Values))
		if err == nil {
			fmt.Fprintln(a.Out, v.Name)
		}
		return err
	}
	return c
}

func (a *App) volumeListCommand() *cobra.Command {
	c := &cobra.Command{Use: "ls [OPTIONS]", Args: noArgs}
	f := c.Flags()
	filter := addFilter(f, `Provide filter values (e.g. "dangling=true")`)
	layout := f.String("format", "", formatUsage)
	quiet := f.BoolP("quiet", "q", false, "Only display volume names")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		volumes, warnings, err := api.VolumeList(cmd.Context(), filter)
		if err != nil {
			return err
		}
		for _, w := range warnings {
			fmt.Fprintf(a.Err, "WARNING: %s\n", w)
		}
		rows := make([]format.Volume, len(volumes))
		for i, v := range volumes {
			rows[i] = format.NewVolume(v)
		}
		format.SortVolumes(rows)
		shape := *layout
		if shape == "" || shape == "table" {
			shape = format.VolumeTable
			if *quiet {
				shape = "{{.Name}}"
			}
		}
		return format.Write(a.Out, shape, format.VolumeHeader, rows)
	}
	return c
}

func (a *App) volumeRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "rm [OPTIONS] VOLUME [VOLUME...]", Args: atLeast(1), ValidArgsFunction: a.completeVolumes}
	force := c.Flags().BoolP("force", "f", false, "Force the removal of one or more volumes")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(name string) (string, error) { return name, api.VolumeRemove(cmd.Context(), name, *force) })
	}
	return c
}
