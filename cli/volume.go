package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"cale/cli/format"
	"cale/cli/option"

	"github.com/spf13/cobra"
)

func volumeCommands() []entry {
	return []entry{
		{name: "create", short: "Create a volume", build: (*App).volumeCreateCommand},
		{name: "export", short: "Export a volume's files as a tar archive", build: (*App).volumeExportCommand},
		{name: "import", short: "Import files from a tar archive into a volume", build: (*App).volumeImportCommand},
		{name: "inspect", short: "Display detailed information on one or more volumes", build: inspectKind("volume")},
		{name: "ls", aliases: []string{"list"}, short: "List volumes", build: (*App).volumeListCommand},
		{name: "prune", short: "Remove unused local volumes", build: (*App).volumePruneCommand},
		{name: "rm", aliases: []string{"remove"}, short: "Remove one or more volumes", build: (*App).volumeRemoveCommand},
		{name: "snapshot", short: "Copy a volume, as it is at one moment, into a new one", build: (*App).volumeSnapshotCommand},
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

func (a *App) volumeSnapshotCommand() *cobra.Command {
	c := &cobra.Command{Use: "snapshot [OPTIONS] VOLUME [NAME]", Args: between(1, 2), ValidArgsFunction: first(a.completeVolumes)}
	c.Long = `Copy a volume, as it is at one moment, into a new one.

Containers that use the volume stand still meanwhile. Where the file system can share blocks the copy takes no room and no
time. Without a NAME the copy is named after the volume and the time. A snapshot is a volume like any other: to go back to
it, mount it, or copy it the other way round (cale volume rm VOLUME; cale volume snapshot NAME VOLUME).`
	f := c.Flags()
	labels := list(f, "label", "", "", "Set metadata for the copy")
	noPause := f.Bool("no-pause", false, "Let containers that use the volume go on")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		name := ""
		if len(args) == 2 {
			name = args[1]
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		v, err := api.VolumeSnapshot(cmd.Context(), args[0], name, option.Map(labels.Values), *noPause)
		if err == nil {
			fmt.Fprintln(a.Out, v.Name)
		}
		return err
	}
	return c
}

func (a *App) volumeExportCommand() *cobra.Command {
	c := &cobra.Command{Use: "export [OPTIONS] VOLUME", Args: exactly(1), ValidArgsFunction: first(a.completeVolumes)}
	c.Long = `Export a volume's files as a tar archive, with owners, permissions and extended attributes.

Files that a container changes meanwhile are exported in one state each; export a snapshot to have all as they were at one
moment.`
	output := c.Flags().StringP("output", "o", "", "Write to a file, instead of STDOUT")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.writeTo(*output, func() (io.ReadCloser, error) { return api.VolumeExport(cmd.Context(), args[0]) })
	}
	return c
}

func (a *App) volumeImportCommand() *cobra.Command {
	c := &cobra.Command{Use: "import [OPTIONS] VOLUME [FILE|-]", Args: between(1, 2), ValidArgsFunction: first(a.completeVolumes)}
	c.Long = `Import files from a tar archive, which may be compressed, into a volume.

A volume that isn't there is made, whole or not at all. In one that is, files are added and replaced; containers may use
it meanwhile.`
	c.RunE = func(cmd *cobra.Command, args []string) error {
		in := a.In
		if len(args) == 2 && args[1] != "-" {
			f, err := os.Open(args[1])
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		} else if _, ok := terminal(a.In); ok {
			return errors.New("an archive can't be typed: name a file, or redirect one")
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		v, err := api.VolumeImport(cmd.Context(), args[0], in)
		if err == nil {
			fmt.Fprintln(a.Out, v.Name)
		}
		return err
	}
	return c
}
