package cli

import (
	"fmt"

	"cale/cli/format"

	"github.com/spf13/cobra"
)

func checkpointCommands() []entry {
	return []entry{
		{name: "create", short: "Create a checkpoint from a running container", build: (*App).checkpointCreateCommand},
		{name: "ls", aliases: []string{"list"}, short: "List checkpoints for a container", build: (*App).checkpointListCommand},
		{name: "rm", aliases: []string{"remove"}, short: "Remove a checkpoint", build: (*App).checkpointRemoveCommand},
	}
}

const checkpointDirUsage = "Use a custom checkpoint storage directory"

func (a *App) checkpointCreateCommand() *cobra.Command {
	c := &cobra.Command{Use: "create [OPTIONS] CONTAINER CHECKPOINT", Args: exactly(2), ValidArgsFunction: a.completeContainers(true)}
	f := c.Flags()
	dir := f.String("checkpoint-dir", "", checkpointDirUsage)
	leave := f.Bool("leave-running", false, "Leave the container running after checkpoint")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		if err := api.CheckpointCreate(cmd.Context(), args[0], args[1], *dir, !*leave); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, args[1])
		return nil
	}
	return c
}

func (a *App) checkpointListCommand() *cobra.Command {
	c := &cobra.Command{Use: "ls [OPTIONS] CONTAINER", Args: exactly(1), ValidArgsFunction: a.completeContainers(false)}
	f := c.Flags()
	dir := f.String("checkpoint-dir", "", checkpointDirUsage)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		list, err := api.CheckpointList(cmd.Context(), args[0], *dir)
		if err != nil {
			return err
		}
		rows := make([]format.Checkpoint, len(list))
		for i, c := range list {
			rows[i].Name = c.Name
		}
		return format.Write(a.Out, format.CheckpointTable, format.CheckpointHeader, rows)
	}
	return c
}

func (a *App) checkpointRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "rm [OPTIONS] CONTAINER CHECKPOINT", Args: exactly(2), ValidArgsFunction: a.completeContainers(false)}
	f := c.Flags()
	dir := f.String("checkpoint-dir", "", checkpointDirUsage)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return api.CheckpointRemove(cmd.Context(), args[0], args[1], *dir)
	}
	return c
}
