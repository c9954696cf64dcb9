package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cale/build/handover"
	"cale/cli/format"
	"cale/ondemand"
)

// buildCommand has the builder carry the command line out, if it runs and can,
// or goes on as cale-build, which knows the flags: BuildKit's code is many times
// as large as this program and has no place in it.
func (a *App) buildCommand() *cobra.Command {
	return &cobra.Command{Use: "build [OPTIONS] PATH | URL | -", DisableFlagParsing: true, RunE: func(cmd *cobra.Command, args []string) error {
		program, err := ondemand.Find("cale-build")
		if err != nil && slices.Contains(args, "--help") {
			return cmd.Help()
		}
		if err != nil {
			return err
		}
		for _, v := range []struct{ key, value string }{{"CALE_ROOT", a.root}, {"CALE_RUN", a.run}} {
			abs, err := filepath.Abs(v.value)
			if err == nil {
				err = os.Setenv(v.key, abs)
			}
			if err != nil {
				return err
			}
		}
		run := os.Getenv("CALE_RUN")
		if dir, err := os.Getwd(); err == nil {
			line := handover.Line{Version: Version + " " + Commit, Args: args, Env: os.Environ(), Dir: dir}
			if code, ok := handover.Offer(cmd.Context(), filepath.Join(run, "build.sock"), line); ok {
				return &Exit{Code: code}
			}
		}
		return unix.Exec(program, append([]string{program, "build"}, args...), os.Environ())
	}}
}

// builderCommands are those of the build cache.
func builderCommands() []entry {
	return append(append(same("build"), workingCommands()...),
		entry{name: "du", short: "Show what the build cache takes on disk", build: (*App).builderUsageCommand},
		entry{name: "prune", short: "Remove build cache", build: (*App).builderPruneCommand})
}

func (a *App) builderUsageCommand() *cobra.Command {
	c := &cobra.Command{Use: "du [OPTIONS]", Args: noArgs}
	layout := c.Flags().String("format", "", formatUsage)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		records, err := api.BuildCache(cmd.Context())
		if err != nil {
			return err
		}
		var rows []format.CacheRecord
		var total, free int64
		now := time.Now()
		for _, r := range records {
			total += r.Size
			if !r.InUse {
				free += r.Size
			}
			rows = append(rows, format.NewCacheRecord(r, now))
		}
		if *layout != "" {
			return format.Write(a.Out, *layout, format.CacheHeader, rows)
		}
		if err := format.Write(a.Out, format.CacheTable, format.CacheHeader, rows); err != nil {
			return err
		}
		fmt.Fprintf(a.Out, "Reclaimable: %s\nTotal: %s\n", units.HumanSize(float64(free)), units.HumanSize(float64(total)))
		return nil
	}
	return c
}

func (a *App) builderPruneCommand() *cobra.Command {
	c := &cobra.Command{Use: "prune [OPTIONS]", Args: noArgs}
	f := c.Flags()
	all := f.BoolP("all", "a", false, "Remove all unused build cache, not just dangling ones")
	filter := list(f, "filter", "", "filter", `Provide filter values (e.g. "until=24h")`)
	force := f.BoolP("force", "f", false, "Do not prompt for confirmation")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		warning := "This will remove all dangling build cache."
		if *all {
			warning = "This will remove all build cache."
		}
		if ok, err := a.mayPrune(*force, warning); !ok {
			return err
		}
		fs, err := pruneFilters(filter.Values)
		if err != nil {
			return err
		}
		p, err := api.PruneBuild(cmd.Context(), *all, fs)
		if err != nil {
			return err
		}
		a.printPruned("Deleted build cache objects:", p.CachesDeleted)
		fmt.Fprintln(a.Out, "Total reclaimed space:", units.HumanSize(float64(p.SpaceReclaimed)))
		return nil
	}
	return c
}
