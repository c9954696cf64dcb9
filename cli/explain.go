package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *App) explainCommand() *cobra.Command {
	c := &cobra.Command{Use: "explain [OPTIONS] CONTAINER", Args: exactly(1), ValidArgsFunction: a.completeContainers(false),
		Long: "Tell why a container ended or did not start; of one that runs, what its processes are refused\n(capabilities, seccomp, AppArmor), which of its limits they have met, and whether it is unhealthy."}
	layout := c.Flags().StringP("format", "f", "", inspectUsage)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		x, err := api.ContainerExplain(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *layout != "" {
			return a.printOne(*layout, x)
		}
		fmt.Fprintf(a.Out, "%s %s.\n", x.Name, standing(x.Status))
		for _, r := range x.Reasons {
			fmt.Fprintf(a.Out, "%-11s %s\n", r.Topic+":", r.Text)
			if r.Hint != "" {
				fmt.Fprintf(a.Out, "%-11s   %s\n", "", r.Hint)
			}
		}
		return nil
	}
	return c
}

// standing is a container's status as what follows its name in a sentence.
func standing(status string) string {
	switch status {
	case "exited":
		return "has exited"
	case "created":
		return "was created, and does not run"
	case "removing":
		return "is being removed"
	}
	return "is " + status
}
