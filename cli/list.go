package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"cale/cli/format"
	"cale/cli/option"
	"cale/client"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// filters is the --filter flag of a listing.
type filters struct{ client.Filters }

func (f filters) Set(s string) error { return option.Filter(f.Filters, s) }
func (f filters) String() string     { return "" }
func (f filters) Type() string       { return "filter" }

func addFilter(f *pflag.FlagSet, usage string) client.Filters {
	m := client.Filters{}
	f.VarP(filters{m}, "filter", "f", usage)
	return m
}

const formatUsage = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.`

func (a *App) psCommand() *cobra.Command {
	c := &cobra.Command{Use: "ps [OPTIONS]", Args: noArgs}
	f := c.Flags()
	var l client.List
	f.BoolVarP(&l.All, "all", "a", false, "Show all containers (default shows just running)")
	f.BoolVar(&l.Owners, "all-owners", false, "Show the containers of Kubernetes' pods too, and whose each is")
	l.Filters = addFilter(f, "Filter output based on conditions provided")
	layout := f.String("format", "", formatUsage)
	f.IntVarP(&l.Limit, "last", "n", -1, "Show n last created containers (includes all states)")
	latest := f.BoolP("latest", "l", false, "Show the latest created container (includes all states)")
	full := f.Bool("no-trunc", false, "Don't truncate output")
	quiet := f.BoolP("quiet", "q", false, "Only display container IDs")
	f.BoolVarP(&l.Size, "size", "s", false, "Display total file sizes")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		if *latest && l.Limit == -1 {
			l.Limit = 1
		}
		shape := *layout
		if strings.Contains(shape, ".Size") {
			l.Size = true
		}
		containers, err := api.ContainerList(cmd.Context(), l)
		if err != nil {
			return err
		}
		now := time.Now()
		rows := make([]format.Container, len(containers))
		for i, c := range containers {
			rows[i] = format.NewContainer(c, *full, now)
		}
		if shape == "" || shape == "table" {
			shape = format.ContainerTable(l.Size, l.Owners)
			if *quiet {
				shape = "{{.ID}}"
			}
		}
		return format.Write(a.Out, shape, format.ContainerHeader, rows)
	}
	return c
}

func (a *App) imagesCommand() *cobra.Command {
	c := &cobra.Command{Use: "images [OPTIONS] [REPOSITORY[:TAG]]", Args: between(0, 1), ValidArgsFunction: a.completeImages}
	f := c.Flags()
	all := f.BoolP("all", "a", false, "Show all images (default hides intermediate and dangling images)")
	digests := f.Bool("digests", false, "Show digests")
	filter := addFilter(f, "Filter output based on conditions provided")
	layout := f.String("format", "", formatUsage)
	full := f.Bool("no-trunc", false, "Don't truncate output")
	quiet := f.BoolP("quiet", "q", false, "Only show image IDs")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		if len(args) == 1 {
			filter["reference"] = append(filter["reference"], args[0])
		}
		images, err := api.ImageList(cmd.Context(), *all, strings.Contains(*layout, "SharedSize") || strings.Contains(*layout, "UniqueSize"), filter)
		if err != nil {
			return err
		}
		now := time.Now()
		showDigest := *digests || strings.Contains(*layout, ".Digest")
		var rows []format.Image
		for _, i := range images {
			rows = append(rows, format.NewImages(i, *full, showDigest, now)...)
		}
		shape := *layout
		if shape == "" || shape == "table" {
			shape = format.ImageTable(*digests)
			if *quiet {
				shape = "{{.ID}}"
			}
		}
		return format.Write(a.Out, shape, format.ImageHeader, rows)
	}
	return c
}

func (a *App) logsCommand() *cobra.Command {
	c := &cobra.Command{Use: "logs [OPTIONS] CONTAINER", Args: exactly(1), ValidArgsFunction: a.completeContainers(false)}
	f := c.Flags()
	var l client.Logs
	f.BoolVarP(&l.Follow, "follow", "f", false, "Follow log output")
	f.StringVar(&l.Since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.StringVar(&l.Until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.BoolVarP(&l.Timestamps, "timestamps", "t", false, "Show timestamps")
	f.BoolVar(&l.Details, "details", false, "Show extra details provided to logs")
	f.StringVarP(&l.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		api, err := a.client()
		if err != nil {
			return err
		}
		now := time.Now()
		if l.Since, err = option.Time(l.Since, now); err != nil {
			return fmt.Errorf(`invalid value for "since": %w`, err)
		}
		if l.Until, err = option.Time(l.Until, now); err != nil {
			return fmt.Errorf(`invalid value for "until": %w`, err)
		}
		if n, err := strconv.Atoi(l.Tail); l.Tail != "all" && (err != nil || n < -1) {
			return fmt.Errorf(`invalid value for "tail": %q is neither a number of lines nor "all"`, l.Tail)
		}
		d, err := api.ContainerInspect(ctx, args[0])
		if err != nil {
			return err
		}
		r, err := api.ContainerLogs(ctx, d.ID, l)
		if err != nil {
			return err
		}
		defer r.Close()
		return copyOutput(a.Out, a.Err, r, d.Config.Tty)
	}
	return c
}
