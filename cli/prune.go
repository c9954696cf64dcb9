package cli

import (
	"errors"
	"fmt"
	"strings"

	"cale/cli/option"
	"cale/client"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// mayPrune asks unless force is given; false without an error means no.
func (a *App) mayPrune(force bool, warning string) (bool, error) {
	if force {
		return true, nil
	}
	return a.confirm("WARNING! " + warning + "\nAre you sure you want to continue?")
}

// pruned lists an image prune's results as Docker words them, which is not as
// rmi does.
func pruned(deleted []client.Deleted) []string {
	var lines []string
	for _, d := range deleted {
		if d.Deleted != "" {
			lines = append(lines, "deleted: "+d.Deleted)
		} else {
			lines = append(lines, "untagged: "+d.Untagged)
		}
	}
	return lines
}

func pruneFilters(values []string) (client.Filters, error) {
	f := client.Filters{}
	for _, v := range values {
		if err := option.Filter(f, v); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (a *App) printPruned(title string, names []string) {
	if len(names) == 0 {
		return
	}
	fmt.Fprintf(a.Out, "%s\n%s\n\n", title, strings.Join(names, "\n"))
}

// pruneKind makes the prune command of containers and networks.
func pruneKind(kind, warning, title string, space bool) func(*App) *cobra.Command {
	return func(a *App) *cobra.Command {
		c := &cobra.Command{Use: "prune [OPTIONS]", Args: noArgs}
		f := c.Flags()
		filter := list(f, "filter", "", "filter", `Provide filter values (e.g. "until=<timestamp>")`)
		force := f.BoolP("force", "f", false, "Do not prompt for confirmation")
		c.RunE = func(cmd *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			if ok, err := a.mayPrune(*force, warning); !ok {
				return err
			}
			fs, err := pruneFilters(filter.Values)
			if err != nil {
				return err
			}
			p, err := api.Prune(cmd.Context(), kind, fs)
			if err != nil {
				return err
			}
			a.printPruned(title, append(p.ContainersDeleted, p.NetworksDeleted...))
			if space {
				fmt.Fprintln(a.Out, "Total reclaimed space:", units.HumanSize(float64(p.SpaceReclaimed)))
			}
			return nil
		}
		return c
	}
}

func (a *App) volumePruneCommand() *cobra.Command {
	c := &cobra.Command{Use: "prune [OPTIONS]", Args: noArgs}
	f := c.Flags()
	all := f.BoolP("all", "a", false, "Remove all unused volumes, not just anonymous ones")
	filter := list(f, "filter", "", "filter", `Provide filter values (e.g. "label=<label>")`)
	force := f.BoolP("force", "f", false, "Do not prompt for confirmation")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		what := "anonymous local volumes not used by at least one container."
		if *all {
			what = "all local volumes not used by at least one container."
		}
		if ok, err := a.mayPrune(*force, "This will remove "+what); !ok {
			return err
		}
		fs, err := pruneFilters(filter.Values)
		if err != nil {
			return err
		}
		if *all {
			fs["all"] = []string{"true"}
		}
		p, err := api.Prune(cmd.Context(), "volumes", fs)
		if err != nil {
			return err
		}
		a.printPruned("Deleted Volumes:", p.VolumesDeleted)
		fmt.Fprintln(a.Out, "Total reclaimed space:", units.HumanSize(float64(p.SpaceReclaimed)))
		return nil
	}
	return c
}

func (a *App) systemPruneCommand() *cobra.Command {
	c := &cobra.Command{Use: "prune [OPTIONS]", Args: noArgs}
	f := c.Flags()
	all := f.BoolP("all", "a", false, "Remove all unused images not just dangling ones")
	filter := list(f, "filter", "", "filter", `Provide filter values (e.g. "label=<key>=<value>")`)
	force := f.BoolP("force", "f", false, "Do not prompt for confirmation")
	volumes := f.Bool("volumes", false, "Prune anonymous volumes")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		api, err := a.client()
		if err != nil {
			return err
		}
		fs, err := pruneFilters(filter.Values)
		if err != nil {
			return err
		}
		if *volumes && fs["until"] != nil {
			return errors.New(`the "until" filter is not supported with "--volumes"`)
		}
		items := []string{"all stopped containers", "all networks not used by at least one container"}
		if *volumes {
			items = append(items, "all anonymous volumes not used by at least one container")
		}
		if *all {
			items = append(items, "all images without at least one container associated to them")
		} else {
			items = append(items, "all dangling images")
		}
		if *all {
			items = append(items, "all build cache")
		} else {
			items = append(items, "unused build cache")
		}
		warning := "This will remove:\n  - " + strings.Join(items, "\n  - ") + "\n"
		if len(filter.Values) > 0 {
			warning += "\n  Items to be pruned will be filtered with:\n  - " + strings.Join(filter.Values, "\n  - ") + "\n"
		}
		if ok, err := a.mayPrune(*force, warning); !ok {
			return err
		}
		var space int64
		steps := []struct {
			kind, title string
			use         bool
		}{{"containers", "Deleted Containers:", true}, {"networks", "Deleted Networks:", true}, {"volumes", "Deleted Volumes:", *volumes}}
		for _, s := range steps {
			if !s.use {
				continue
			}
			p, err := api.Prune(ctx, s.kind, fs)
			if err != nil {
				return err
			}
			space += p.SpaceReclaimed
			a.printPruned(s.title, append(append(p.ContainersDeleted, p.NetworksDeleted...), p.VolumesDeleted...))
		}
		p, err := a.pruneImages(cmd, api, *all, fs)
		if err != nil {
			return err
		}
		space += p.SpaceReclaimed
		a.printPruned("Deleted Images:", pruned(p.ImagesDeleted))
		if p, err = api.PruneBuild(ctx, *all, fs); err != nil {
			return err
		}
		space += p.SpaceReclaimed
		a.printPruned("Deleted build cache objects:", p.CachesDeleted)
		fmt.Fprintln(a.Out, "Total reclaimed space:", units.HumanSize(float64(space)))
		return nil
	}
	return c
}
