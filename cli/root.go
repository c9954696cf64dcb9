package cli

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/cobra"
)

// entry is a command in the table: its name and one-line help are there
// always, the rest is built only when the command line names it.
type entry struct {
	name    string
	aliases []string
	short   string
	build   func(*App) *cobra.Command
	group   string
}

const (
	common     = "Common Commands"
	management = "Management Commands"
	other      = "Commands"
)

func (a *App) rootCommand() *cobra.Command {
	cobra.EnableCommandSorting = false // help sorts, but for the first group
	root := &cobra.Command{
		Use:              "cale [OPTIONS] COMMAND",
		Short:            "Containers on this machine",
		SilenceUsage:     true,
		SilenceErrors:    true,
		TraverseChildren: true,
		Version:          Version,
		Args:             noArgs,
		RunE:             func(c *cobra.Command, args []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(usage)
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { help(c, c.OutOrStdout()) })
	root.SetVersionTemplate("")
	f := root.Flags()
	f.StringVarP(&a.host, "host", "H", a.host, "Engine to connect to (unix:///path, tcp://address:port, ssh://[user@]host; also CALE_HOST)")
	f.StringVar(&a.root, "root", a.root, "Data of the engine that is started on demand")
	f.StringVar(&a.run, "run", a.run, "Run-time folder, with the engine's socket")
	f.BoolP("version", "v", false, "Print version information and quit")
	f.Bool("help", false, "Print usage")
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return nil }
	root.RunE = func(c *cobra.Command, _ []string) error {
		if v, _ := c.Flags().GetBool("version"); v {
			fmt.Fprintln(a.Out, versionLine())
			return nil
		}
		return c.Help()
	}
	a.add(root, commands())
	a.addUnbuilt(root)
	root.SetHelpCommand(&cobra.Command{Use: "help [COMMAND]", Short: "Help about a command", GroupID: other, RunE: func(c *cobra.Command, args []string) error {
		return a.helpFor(c.Root(), args)
	}})
	for _, id := range []string{common, management, other} {
		root.AddGroup(&cobra.Group{ID: id, Title: id})
	}
	root.SetCompletionCommandGroupID(other)
	return root
}

func versionLine() string {
	if Commit == "" {
		return "cale version " + Version
	}
	return "cale version " + Version + ", build " + Commit
}

// helpFor rebuilds the tree for the command that help names.
func (a *App) helpFor(root *cobra.Command, args []string) error {
	c, rest, err := root.Find(args)
	if err != nil || c == nil || len(rest) > 0 {
		return fmt.Errorf("unknown help topic: %s", strings.Join(args, " "))
	}
	return c.Help()
}

// add adds the table's commands to parent.
func (a *App) add(parent *cobra.Command, table []entry) {
	for _, e := range table {
		c := &cobra.Command{Use: e.name, RunE: func(*cobra.Command, []string) error { return nil }}
		if a.named(e) {
			c = e.build(a)
			_, operands, _ := strings.Cut(c.Use, " ")
			c.Use = strings.TrimSpace(e.name + " " + operands)
			if c.Flags().Lookup("help") == nil {
				c.Flags().Bool("help", false, "Print usage")
			}
			if len(c.Commands()) > 0 || c.RunE == nil {
				c.Args, c.RunE = groupArgs, func(c *cobra.Command, _ []string) error { return c.Help() }
			}
		}
		c.Aliases, c.Short, c.GroupID = e.aliases, e.short, e.group
		c.DisableFlagsInUseLine = true
		parent.AddCommand(c)
	}
}

// named tells whether the command line can mean an entry.
func (a *App) named(e entry) bool {
	return slices.Contains(a.args, e.name) || slices.ContainsFunc(e.aliases, func(s string) bool { return slices.Contains(a.args, s) })
}

// group makes a command that only holds others.
func group(table func() []entry) func(*App) *cobra.Command {
	return func(a *App) *cobra.Command {
		c := &cobra.Command{Use: "group COMMAND"}
		a.add(c, table())
		return c
	}
}

func groupArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unknown command: %s %s (see '%s --help')", c.CommandPath(), args[0], c.CommandPath())
}

// flagError gives bad flags Docker's exit code, for every command.
func flagError(c *cobra.Command, err error) error {
	return &Exit{Code: 125, Message: fmt.Sprintf("%s (see '%s --help')", err, c.CommandPath())}
}

// Arguments are counted with messages that name the command.

func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasSubCommands() {
		return groupArgs(c, args)
	}
	return fmt.Errorf("'%s' accepts no arguments (see '%s --help')", c.CommandPath(), c.CommandPath())
}

func atLeast(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return fmt.Errorf("'%s' requires at least %d %s (see '%s --help')", c.CommandPath(), n, plural("argument", n), c.CommandPath())
	}
}

func exactly(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return fmt.Errorf("'%s' requires %d %s (see '%s --help')", c.CommandPath(), n, plural("argument", n), c.CommandPath())
	}
}

func between(low, high int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) >= low && len(args) <= high {
			return nil
		}
		return fmt.Errorf("'%s' requires %d to %d arguments (see '%s --help')", c.CommandPath(), low, high, c.CommandPath())
	}
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func usage(c *cobra.Command) error {
	help(c, c.OutOrStderr())
	return nil
}

// help prints a command's help in Docker's shape.
func help(c *cobra.Command, w io.Writer) {
	path := c.CommandPath()
	operands := ""
	if i := strings.IndexByte(c.Use, ' '); i > 0 {
		operands = c.Use[i:]
	}
	if c.HasAvailableFlags() && !strings.Contains(operands, "[OPTIONS]") && !c.HasSubCommands() {
		operands = " [OPTIONS]" + operands
	}
	fmt.Fprintf(w, "Usage:  %s%s\n", path, operands)
	if text := c.Long; text != "" || c.Short != "" {
		if text == "" {
			text = c.Short
		}
		fmt.Fprintf(w, "\n%s\n", text)
	}
	if len(c.Aliases) > 0 {
		parent := strings.TrimSuffix(path, c.Name())
		fmt.Fprintf(w, "\nAliases:\n  %s", path)
		for _, alias := range c.Aliases {
			fmt.Fprintf(w, ", %s%s", parent, alias)
		}
		fmt.Fprintln(w)
	}
	groups := map[string][]*cobra.Command{}
	width := 0
	for _, sub := range c.Commands() {
		if sub.Hidden || sub.Deprecated != "" {
			continue
		}
		id := sub.GroupID
		if id == "" {
			id = other
		}
		groups[id] = append(groups[id], sub)
		width = max(width, len(sub.Name()))
	}
	for _, id := range []string{common, management, other} {
		if len(groups[id]) == 0 {
			continue
		}
		if id != common {
			sort.Slice(groups[id], func(i, j int) bool { return groups[id][i].Name() < groups[id][j].Name() })
		}
		fmt.Fprintf(w, "\n%s:\n", id)
		for _, sub := range groups[id] {
			fmt.Fprintf(w, "  %-*s   %s\n", width, sub.Name(), sub.Short)
		}
	}
	flags := c.LocalFlags()
	if text := flagUsages(flags); text != "" {
		fmt.Fprintf(w, "\nOptions:\n%s", text)
	}
	if c.HasSubCommands() {
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", path)
	}
}
