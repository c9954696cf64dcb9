package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"cale/cli/format"
	"cale/client"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func (a *App) pushCommand() *cobra.Command {
	c := &cobra.Command{Use: "push [OPTIONS] NAME[:TAG]", Args: exactly(1), ValidArgsFunction: a.completeImages}
	f := c.Flags()
	all := f.BoolP("all-tags", "a", false, "Push all tags of an image to the repository")
	quiet := f.BoolP("quiet", "q", false, "Suppress verbose output")
	platform := f.String("platform", "", "Push a platform-specific manifest as a single-platform image to the registry (os[/arch[/variant]])")
	trust := f.Bool("disable-content-trust", true, "Skip image signing")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !*trust {
			return errors.New("--disable-content-trust=false: image signatures by content trust are not supported")
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		name, tag, digest := splitName(args[0])
		out := a.Out
		if *quiet {
			out = io.Discard
		}
		switch {
		case digest != "":
			return errors.New("cannot push a digest reference")
		case *all && tag != "":
			return errors.New("tag can't be used with --all-tags/-a")
		case !*all && tag == "":
			tag = "latest"
			fmt.Fprintln(out, "Using default tag: latest")
		}
		r, err := api.ImagePush(cmd.Context(), name, tag, platformJSON(*platform), a.auth(cmd.Context(), name))
		if err != nil {
			return err
		}
		defer r.Close()
		if err := showProgress(out, r, nil); err != nil {
			return err
		}
		if *quiet {
			full := fullName(name)
			if tag != "" {
				full += ":" + tag
			}
			fmt.Fprintln(a.Out, full)
		}
		return nil
	}
	return c
}

func (a *App) rmiCommand() *cobra.Command {
	c := &cobra.Command{Use: "rmi [OPTIONS] IMAGE [IMAGE...]", Args: atLeast(1), ValidArgsFunction: a.completeImages}
	f := c.Flags()
	force := f.BoolP("force", "f", false, "Force removal of the image")
	noPrune := f.Bool("no-prune", false, "Do not delete untagged parents")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(name string) (string, error) {
			deleted, err := api.ImageRemove(cmd.Context(), name, *force, *noPrune)
			if *force && client.IsNotFound(err) {
				fmt.Fprintf(a.Err, "cale: %v\n", err)
				return "", nil
			}
			return strings.Join(deletions(deleted), "\n"), err
		})
	}
	return c
}

func deletions(deleted []client.Deleted) []string {
	var lines []string
	for _, d := range deleted {
		if d.Deleted != "" {
			lines = append(lines, "Deleted: "+d.Deleted)
		} else {
			lines = append(lines, "Untagged: "+d.Untagged)
		}
	}
	return lines
}

func (a *App) tagCommand() *cobra.Command {
	c := &cobra.Command{Use: "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", Args: exactly(2), ValidArgsFunction: a.completeImages}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		name, tag, digest := splitName(args[1])
		if digest != "" {
			return errors.New("refusing to create a tag with a digest reference")
		}
		return api.ImageTag(cmd.Context(), args[0], name, tag)
	}
	return c
}

func (a *App) historyCommand() *cobra.Command {
	c := &cobra.Command{Use: "history [OPTIONS] IMAGE", Args: exactly(1), ValidArgsFunction: a.completeImages}
	f := c.Flags()
	layout := f.String("format", "", formatUsage)
	human := f.BoolP("human", "H", true, "Print sizes and dates in human readable format")
	full := f.Bool("no-trunc", false, "Don't truncate output")
	quiet := f.BoolP("quiet", "q", false, "Only show image IDs")
	platform := f.String("platform", "", "Show history for the given platform (os[/arch[/variant]])")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		steps, err := api.ImageHistory(cmd.Context(), args[0], platformJSON(*platform))
		if err != nil {
			return err
		}
		now := time.Now()
		rows := make([]format.Step, len(steps))
		for i, s := range steps {
			rows[i] = format.NewStep(s, *full, *human, now)
		}
		shape := *layout
		if shape == "" || shape == "table" {
			shape = format.StepTable(*human)
			if *quiet {
				shape = "{{.ID}}"
			}
		}
		return format.Write(a.Out, shape, format.StepHeader, rows)
	}
	return c
}

func (a *App) saveCommand() *cobra.Command {
	c := &cobra.Command{Use: "save [OPTIONS] IMAGE [IMAGE...]", Args: atLeast(1), ValidArgsFunction: a.completeImages}
	f := c.Flags()
	output := f.StringP("output", "o", "", "Write to a file, instead of STDOUT")
	platform := f.String("platform", "", "Save only the given platform (os[/arch[/variant]])")
	form := f.String("format", "archive", `Write a tar "archive" that Docker and OCI tools read, or an OCI layout folder ("oci-dir", needs -o)`)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		open := func() (io.ReadCloser, error) { return api.ImageSave(cmd.Context(), args, platformJSON(*platform)) }
		switch *form {
		case "archive":
			return a.writeTo(*output, open)
		case "oci-dir":
			if *output == "" {
				return errors.New("--format oci-dir needs a folder to write: name it with -o")
			}
			return unpackLayout(*output, open)
		}
		return fmt.Errorf("unknown format %q: archive or oci-dir", *form)
	}
	return c
}

// writeTo copies what open gives to a file, which appears only when it is
// whole, or to the output, which must not be a terminal.
func (a *App) writeTo(name string, open func() (io.ReadCloser, error)) error {
	if name == "" {
		if _, ok := terminal(a.Out); ok {
			return errors.New("cowardly refusing to save to a terminal: use the -o flag or redirect")
		}
	} else if st, err := os.Stat(name); err == nil && st.IsDir() {
		return fmt.Errorf("%s is a directory", name)
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	if name == "" {
		_, err := io.Copy(a.Out, r)
		return err
	}
	return writeWhole(name, r)
}

// writeWhole writes a file by way of a temporary one beside it; a device or
// pipe is written as it is.
func writeWhole(name string, r io.Reader) error {
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
	tmp := fmt.Sprintf("%s.%d.part", name, os.Getpid())
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		// Of the file that was asked for, not of one nobody knows.
		var path *fs.PathError
		if errors.As(err, &path) {
			path.Path = name
		}
		return err
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

func (a *App) loadCommand() *cobra.Command {
	c := &cobra.Command{Use: "load [OPTIONS]", Args: noArgs}
	f := c.Flags()
	input := f.StringP("input", "i", "", "Read from tar archive file or OCI layout folder, instead of STDIN")
	quiet := f.BoolP("quiet", "q", false, "Suppress the load output")
	platform := f.String("platform", "", "Load only the given platform (os[/arch[/variant]])")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		in := a.In
		if fi, err := os.Stat(*input); *input != "" && err == nil && fi.IsDir() {
			layout := packLayout(*input)
			defer layout.Close()
			in = layout
		} else if *input != "" {
			file, err := os.Open(*input)
			if err != nil {
				return err
			}
			defer file.Close()
			in = file
		} else if _, ok := terminal(a.In); ok {
			return errors.New("requested load from stdin, but stdin is a terminal: use the -i flag or redirect")
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		if _, _, term := terminalSize(a.Out); !term {
			*quiet = true
		}
		r, err := api.ImageLoad(cmd.Context(), in, *quiet, platformJSON(*platform))
		if err != nil {
			return err
		}
		defer r.Close()
		return showProgress(a.Out, r, nil)
	}
	return c
}

func (a *App) importCommand() *cobra.Command {
	c := &cobra.Command{Use: "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]", Args: between(1, 2)}
	f := c.Flags()
	var i client.Import
	changes := list(f, "change", "c", "", "Apply Dockerfile instruction to the created image")
	f.StringVarP(&i.Message, "message", "m", "", "Set commit message for imported image")
	f.StringVar(&i.Platform, "platform", "", "Set platform if server is multi-platform capable")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var in io.Reader
		switch source := args[0]; {
		case source == "-":
			i.Source, in = "-", a.In
		case strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"):
			i.Source = source
		default:
			file, err := os.Open(source)
			if err != nil {
				return err
			}
			defer file.Close()
			i.Source, in = "-", file
		}
		if len(args) == 2 {
			i.Repo, i.Tag, _ = splitName(args[1])
		}
		i.Changes = changes.Values
		api, err := a.client()
		if err != nil {
			return err
		}
		r, err := api.ImageImport(cmd.Context(), i, in)
		if err != nil {
			return err
		}
		defer r.Close()
		return showProgress(a.Out, r, nil)
	}
	return c
}

func (a *App) exportCommand() *cobra.Command {
	c := &cobra.Command{Use: "export [OPTIONS] CONTAINER", Args: exactly(1), ValidArgsFunction: a.completeContainers(false)}
	output := c.Flags().StringP("output", "o", "", "Write to a file, instead of STDOUT")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.writeTo(*output, func() (io.ReadCloser, error) { return api.ContainerExport(cmd.Context(), args[0]) })
	}
	return c
}

func (a *App) commitCommand() *cobra.Command {
	c := &cobra.Command{Use: "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", Args: between(1, 2), ValidArgsFunction: a.completeContainers(false)}
	f := c.Flags()
	var m client.Commit
	f.StringVarP(&m.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	changes := list(f, "change", "c", "", "Apply Dockerfile instruction to the created image")
	f.StringVarP(&m.Comment, "message", "m", "", "Commit message")
	f.BoolVarP(&m.Pause, "pause", "p", true, "Pause container during commit")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		m.Container, m.Changes = args[0], changes.Values
		if len(args) == 2 {
			m.Repo, m.Tag, _ = splitName(args[1])
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		id, err := api.ContainerCommit(cmd.Context(), m)
		if err == nil {
			fmt.Fprintln(a.Out, id)
		}
		return err
	}
	return c
}

func (a *App) pruneImages(cmd *cobra.Command, api *client.Client, all bool, f client.Filters) (client.Pruned, error) {
	q := client.Filters{}
	for k, v := range f {
		q[k] = v
	}
	q["dangling"] = []string{fmt.Sprint(!all)}
	return api.Prune(cmd.Context(), "images", q)
}

func (a *App) imagePruneCommand() *cobra.Command {
	c := &cobra.Command{Use: "prune [OPTIONS]", Args: noArgs}
	f := c.Flags()
	all := f.BoolP("all", "a", false, "Remove all unused images, not just dangling ones")
	filter := list(f, "filter", "", "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	force := f.BoolP("force", "f", false, "Do not prompt for confirmation")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		what := "all dangling images"
		if *all {
			what = "all images without at least one container associated to them"
		}
		if ok, err := a.mayPrune(*force, "This will remove "+what+"."); !ok {
			return err
		}
		fs, err := pruneFilters(filter.Values)
		if err != nil {
			return err
		}
		p, err := a.pruneImages(cmd, api, *all, fs)
		if err != nil {
			return err
		}
		a.printPruned("Deleted Images:", pruned(p.ImagesDeleted))
		fmt.Fprintln(a.Out, "Total reclaimed space:", units.HumanSize(float64(p.SpaceReclaimed)))
		return nil
	}
	return c
}
