package cli

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cale/ondemand"
)

// buildCommand goes on as cale-build, which knows the flags: BuildKit's code is
// many times as large as this program and has no place in it.
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
		return unix.Exec(program, append([]string{program, "build"}, args...), os.Environ())
	}}
}
