package cli

import (
	"errors"
	"slices"
	"strconv"

	"cale/cli/format"

	"github.com/spf13/cobra"
)

func (a *App) searchCommand() *cobra.Command {
	c := &cobra.Command{Use: "search [OPTIONS] TERM", Args: exactly(1)}
	f := c.Flags()
	filter := addFilter(f, "Filter output based on conditions provided")
	layout := f.String("format", "", "Pretty-print search using a Go template")
	limit := f.Int("limit", 0, "Max number of search results")
	full := f.Bool("no-trunc", false, "Don't truncate output")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		found, err := api.ImageSearch(cmd.Context(), args[0], *limit, filter, a.auth(cmd.Context(), args[0]))
		if err != nil {
			return err
		}
		rows := make([]format.Found, len(found))
		for i, s := range found {
			rows[i] = format.Found{Description: s.Description, Name: s.Name, StarCount: strconv.Itoa(s.StarCount)}
			if s.Official {
				rows[i].IsOfficial = "[OK]"
			}
			if !*full {
				rows[i].Description = format.Ellipsis(s.Description, 45)
			}
		}
		shape := *layout
		if shape == "" || shape == "table" {
			shape = format.FoundTable
		}
		return format.Write(a.Out, shape, format.FoundHeader, rows)
	}
	return c
}

// unbuilt are the verbs of Docker's that are still to come, with what helps
// meanwhile.
var unbuilt = map[string]string{
	"buildx": "cale build has its flags", "checkpoint": "", "config": "", "context": "CALE_HOST or -H choose another engine", "node": "",
	"compose": "Docker's compose works when DOCKER_HOST is unix://$CALE_RUN/docker.sock",
	"plugin":  "", "secret": "", "service": "", "stack": "", "swarm": "",
}

// addUnbuilt adds the one of those that the command line names, which says that
// it is missing rather than unknown.
func (a *App) addUnbuilt(root *cobra.Command) {
	for verb, help := range unbuilt {
		if !slices.Contains(a.args, verb) || slices.ContainsFunc(root.Commands(), func(c *cobra.Command) bool { return c.Name() == verb }) {
			continue
		}
		root.AddCommand(&cobra.Command{Use: verb, Hidden: true, DisableFlagParsing: true, RunE: func(*cobra.Command, []string) error {
			text := verb + " is not built yet in Cale"
			if help != "" {
				text += ": " + help
			}
			return errors.New(text)
		}})
	}
}
