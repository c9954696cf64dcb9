package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cale/cli/format"
	"cale/client"
	"cale/image"
)

// Scripted builds: commands and flags as Buildah has them, on a working
// container, which is a container that Docker's clients see as well.

// workingLabel is on working containers.
const workingLabel = "cale.working"

// workingCommands are those of "cale builder" for scripted builds.
func workingCommands() []entry {
	return []entry{
		{name: "from", short: "Create a working container from an image, or from scratch", build: (*App).fromCommand},
		{name: "run", short: "Run a command inside of a working container", build: (*App).workingRunCommand},
		{name: "copy", short: "Copy content into a working container", build: func(a *App) *cobra.Command { return a.workingCopyCommand(false) }},
		{name: "add", short: "Add content to a working container; archives are unpacked, URLs fetched", build: func(a *App) *cobra.Command { return a.workingCopyCommand(true) }},
		{name: "config", short: "Update the configuration of the image that a working container is to be", build: (*App).workingConfigCommand},
		{name: "inspect", short: "Show the configuration of the image that a working container is to be", build: (*App).workingInspectCommand},
		{name: "mount", short: "Mount the root filesystem of working containers, and show where", build: (*App).workingMountCommand},
		{name: "umount", aliases: []string{"unmount"}, short: "Unmount the root filesystem of working containers", build: (*App).workingUmountCommand},
		{name: "commit", short: "Create an image from a working container", build: (*App).workingCommitCommand},
		{name: "containers", aliases: []string{"list", "ls", "ps"}, short: "List working containers", build: (*App).workingListCommand},
		{name: "rm", aliases: []string{"delete"}, short: "Remove working containers", build: (*App).workingRemoveCommand},
		{name: "rename", short: "Rename a working container", build: (*App).workingRenameCommand},
		{name: "push", short: "Upload an image to a registry", build: (*App).workingPushCommand},
	}
}

func (a *App) fromCommand() *cobra.Command {
	c := &cobra.Command{Use: "from [OPTIONS] IMAGE", Args: exactly(1)}
	f := c.Flags()
	name := f.String("name", "", "Name of the working container (default: of the image, \"busybox-working-container\")")
	network := f.String("network", "", "Network of the commands that are run (\"none\", \"host\", a network's name)")
	volumes := f.StringArrayP("volume", "v", nil, "Bind mount a volume into the container while commands are run")
	platform := f.String("platform", "", "Take the image of this platform")
	pull := f.Bool("pull-always", false, "Pull the image although it is here")
	quiet := f.BoolP("quiet", "q", false, "Don't show the progress of pulls")
	memory := f.String("memory", "", "")
	f.Lookup("memory").Hidden = true
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if *memory != "" {
			return errors.New("--memory is not built yet for working containers in Cale")
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		from, base := args[0], "scratch"
		if from == "scratch" {
			if from, err = a.scratch(ctx, api); err != nil {
				return err
			}
		} else {
			r, err := image.ParseReference(strings.TrimPrefix(from, "docker://"))
			if err != nil {
				return err
			}
			from, base = strings.TrimPrefix(from, "docker://"), filepath.Base(r.Path)
		}
		fl := &createFlags{platform: *platform, quiet: *quiet, name: *name}
		if *pull {
			fl.pull = "always"
		}
		conf := &client.Config{Image: from, Cmd: []string{"true"}, Labels: map[string]string{workingLabel: args[0]}}
		host := &client.HostConfig{NetworkMode: *network, Binds: *volumes}
		id, err := a.createNamed(ctx, api, fl, conf, host, base)
		if err != nil {
			return err
		}
		cfg, err := api.WorkingConfig(ctx, id)
		if err == nil {
			err = api.SetWorkingConfig(ctx, id, cfg)
		}
		if err != nil {
			return err
		}
		d, err := api.ContainerInspect(ctx, id)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.Out, strings.TrimPrefix(d.Name, "/"))
		return nil
	}
	return c
}

// createNamed creates a container under the name that was asked for, or the first
// that is free of base's.
func (a *App) createNamed(ctx context.Context, api *client.Client, f *createFlags, conf *client.Config, host *client.HostConfig, base string) (string, error) {
	if f.name != "" {
		return a.create(ctx, api, f, conf, host, nil)
	}
	for n := 0; ; n++ {
		f.name = base + "-working-container"
		if n > 0 {
			f.name += fmt.Sprintf("-%d", n)
		}
		id, err := a.create(ctx, api, f, conf, host, nil)
		if err == nil || n == 1000 || !strings.Contains(err.Error(), "is already in use") {
			return id, err
		}
	}
}

// scratch is an image of nothing.
func (a *App) scratch(ctx context.Context, api *client.Client) (id string, err error) {
	var empty bytes.Buffer
	if err := tar.NewWriter(&empty).Close(); err != nil {
		return "", err
	}
	answer, err := api.ImageImport(ctx, client.Import{Source: "-"}, &empty)
	if err != nil {
		return "", err
	}
	defer answer.Close()
	d := json.NewDecoder(answer)
	for {
		var m struct{ Status, Error string }
		if err := d.Decode(&m); err != nil {
			break
		}
		if m.Error != "" {
			return "", errors.New(m.Error)
		}
		if strings.HasPrefix(m.Status, "sha256:") {
			id = m.Status
		}
	}
	if id == "" {
		return "", errors.New("the engine made no empty image")
	}
	return id, nil
}

func (a *App) workingRunCommand() *cobra.Command {
	c := &cobra.Command{Use: "run [OPTIONS] CONTAINER COMMAND [ARG...]", Args: atLeast(2)}
	f := c.Flags()
	f.SetInterspersed(false)
	var p client.Process
	tty := f.BoolP("tty", "t", false, "Allocate a pseudo-TTY")
	terminal := f.Bool("terminal", false, "Allocate a pseudo-TTY")
	env := f.StringArrayP("env", "e", nil, "Set environment variables for this command")
	f.StringVarP(&p.User, "user", "u", "", "User the command is run as")
	f.StringVar(&p.Dir, "workingdir", "", "Working directory of the command")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		api, err := a.client()
		if err != nil {
			return err
		}
		p.Args, p.Env, p.TTY, p.OpenStdin = args[1:], *env, *tty || *terminal, true
		if p.Args[0] == "--" {
			p.Args = p.Args[1:]
		}
		if err := a.checkTerminal(true, p.TTY); err != nil {
			return err
		}
		d, err := api.ContainerInspect(ctx, args[0])
		if err != nil {
			return err
		}
		if err := api.SetProcess(ctx, d.ID, p); err != nil {
			return err
		}
		// Two mounts of one tree must not be in use at once.
		again, err := a.setAside(ctx, api, d.ID)
		if err != nil {
			return err
		}
		err = a.foreground(ctx, foreground{api: api, id: d.ID, tty: p.TTY, stdin: true, stdout: true, stderr: true, sigProxy: !p.TTY, start: true})
		return errors.Join(err, again())
	}
	return c
}

// change edits the configuration of a working container's image.
func (a *App) change(ctx context.Context, container string, edit func(*client.Config) error) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	cfg, err := api.WorkingConfig(ctx, container)
	if err != nil {
		return err
	}
	if err := edit(&cfg); err != nil {
		return err
	}
	return api.SetWorkingConfig(ctx, container, cfg)
}

func (a *App) workingConfigCommand() *cobra.Command {
	c := &cobra.Command{Use: "config [OPTIONS] CONTAINER", Args: exactly(1)}
	f := c.Flags()
	cmdline := f.String("cmd", "", "Set the default command")
	entrypoint := f.String("entrypoint", "", "Set the entry point (a JSON list, or a line for the shell)")
	env := f.StringArrayP("env", "e", nil, "Add or change an environment variable (NAME=VALUE; NAME- removes it, - all)")
	labels := f.StringArrayP("label", "l", nil, "Add or change a label (NAME=VALUE; NAME- removes it, - all)")
	ports := f.StringArrayP("port", "p", nil, "Add a port to expose (PORT- removes it, - all)")
	volumes := f.StringArrayP("volume", "v", nil, "Add a volume (PATH- removes it, - all)")
	onbuild := f.StringArray("onbuild", nil, "Add an instruction that is run when the image is built on")
	user := f.StringP("user", "u", "", "Set the default user")
	dir := f.String("workingdir", "", "Set the working directory")
	signal := f.String("stop-signal", "", "Set the stop signal")
	shell := f.String("shell", "", "Set the shell of commands that are lines")
	health := workingHealth(f)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return a.change(cmd.Context(), args[0], func(cfg *client.Config) error {
			if f.Changed("entrypoint") {
				cfg.Entrypoint = words(*entrypoint, true)
				if !f.Changed("cmd") {
					cfg.Cmd = nil // it was the other entry point's
				}
			}
			if f.Changed("cmd") {
				cfg.Cmd = words(*cmdline, false)
			}
			for text, at := range map[string]*string{"user": &cfg.User, "workingdir": &cfg.WorkingDir, "stop-signal": &cfg.StopSignal} {
				if f.Changed(text) {
					*at = map[string]string{"user": *user, "workingdir": *dir, "stop-signal": *signal}[text]
				}
			}
			if f.Changed("shell") {
				cfg.Shell = words(*shell, false)
			}
			cfg.Env = pairs(cfg.Env, *env)
			var list []string
			for k, v := range cfg.Labels {
				list = append(list, k+"="+v)
			}
			slices.Sort(list)
			cfg.Labels = map[string]string{}
			for _, l := range pairs(list, *labels) {
				k, v, _ := strings.Cut(l, "=")
				cfg.Labels[k] = v
			}
			for i, p := range *ports {
				if p != "-" && !strings.Contains(p, "/") {
					if bare, gone := strings.CutSuffix(p, "-"); gone {
						(*ports)[i] = bare + "/tcp-"
					} else {
						(*ports)[i] = p + "/tcp"
					}
				}
			}
			cfg.ExposedPorts = members(cfg.ExposedPorts, *ports)
			cfg.Volumes = members(cfg.Volumes, *volumes)
			cfg.OnBuild = append(cfg.OnBuild, *onbuild...)
			return health(cfg)
		})
	}
	return c
}

// words reads a command: a JSON list, or what Buildah makes of a line: a
// shell's, or its words.
func words(s string, shell bool) []string {
	var list []string
	switch {
	case s == "":
		return nil
	case json.Unmarshal([]byte(s), &list) == nil:
		return list
	case shell:
		return []string{"/bin/sh", "-c", s}
	}
	return splitWords(s)
}

// splitWords splits a line at blanks, as a shell does with quotes.
func splitWords(s string) (out []string) {
	var word strings.Builder
	var quote rune
	begun, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, begun = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == ' ' || r == '\t':
			if begun {
				out = append(out, word.String())
				word.Reset()
				begun = false
			}
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if begun {
		out = append(out, word.String())
	}
	return out
}

// pairs changes a list of NAME=VALUE.
func pairs(list, changes []string) []string {
	out := slices.Clone(list)
	for _, c := range changes {
		name, _, set := strings.Cut(c, "=")
		if !set {
			if c == "-" {
				out = nil
				continue
			}
			bare, gone := strings.CutSuffix(c, "-")
			if name = bare; !gone {
				c = name + "=" + os.Getenv(name)
				set = true
			}
		}
		i := slices.IndexFunc(out, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		switch {
		case i >= 0 && set:
			out[i] = c
		case i >= 0:
			out = slices.Delete(out, i, i+1)
		case set:
			out = append(out, c)
		}
	}
	return out
}

// members changes a set.
func members(set map[string]struct{}, changes []string) map[string]struct{} {
	out := maps.Clone(set)
	if out == nil {
		out = map[string]struct{}{}
	}
	for _, c := range changes {
		if name, gone := strings.CutSuffix(c, "-"); c == "-" {
			clear(out)
		} else if gone {
			delete(out, name)
		} else {
			out[c] = struct{}{}
		}
	}
	return out
}

func (a *App) workingInspectCommand() *cobra.Command {
	c := &cobra.Command{Use: "inspect CONTAINER", Args: exactly(1)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		cfg, err := api.WorkingConfig(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		enc := json.NewEncoder(a.Out)
		enc.SetIndent("", "    ")
		return enc.Encode(cfg)
	}
	return c
}

func (a *App) workingCommitCommand() *cobra.Command {
	c := &cobra.Command{Use: "commit [OPTIONS] CONTAINER [IMAGE]", Args: between(1, 2)}
	f := c.Flags()
	rm := f.Bool("rm", false, "Remove the working container afterwards")
	iidfile := f.String("iidfile", "", "Write the image ID to a file")
	quiet := f.BoolP("quiet", "q", false, "Show nothing but the image ID")
	author := f.String("author", "", "Author of the image")
	message := f.StringP("message", "m", "", "Comment of the image's history")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		api, err := a.client()
		if err != nil {
			return err
		}
		m := client.Commit{Container: args[0], Author: *author, Comment: *message, Pause: true}
		if len(args) == 2 {
			m.Repo, m.Tag, _ = splitName(args[1])
		}
		id, err := api.ContainerCommit(ctx, m)
		if err != nil {
			return err
		}
		if *iidfile != "" {
			if err := os.WriteFile(*iidfile, []byte(id), 0o644); err != nil {
				return err
			}
		}
		if *rm {
			if err := a.removeWorking(ctx, api, args[0]); err != nil {
				return err
			}
		}
		_ = *quiet // an image ID is all that there is to show
		fmt.Fprintln(a.Out, strings.TrimPrefix(id, "sha256:"))
		return nil
	}
	return c
}

func (a *App) workingListCommand() *cobra.Command {
	c := &cobra.Command{Use: "containers [OPTIONS]", Args: noArgs}
	f := c.Flags()
	quiet := f.BoolP("quiet", "q", false, "Show container IDs alone")
	asJSON := f.Bool("json", false, "Show JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		list, err := a.working(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			enc := json.NewEncoder(a.Out)
			enc.SetIndent("", "    ")
			return enc.Encode(list)
		}
		if *quiet {
			for _, w := range list {
				fmt.Fprintln(a.Out, w.ID)
			}
			return nil
		}
		rows := make([]workingRow, 0, len(list))
		for _, w := range list {
			w.ID = format.ShortID(w.ID)
			rows = append(rows, w)
		}
		return format.Write(a.Out, "table {{.ID}}\t{{.ImageName}}\t{{.ContainerName}}", workingRow{ID: "CONTAINER ID", ImageName: "IMAGE NAME", ContainerName: "CONTAINER NAME"}, rows)
	}
	return c
}

// workingRow is a working container as it is listed.
type workingRow struct {
	ID            string `json:"id"`
	ImageID       string `json:"imageid"`
	ImageName     string `json:"imagename"`
	ContainerName string `json:"containername"`
}

func (a *App) working(ctx context.Context) ([]workingRow, error) {
	api, err := a.client()
	if err != nil {
		return nil, err
	}
	list, err := api.ContainerList(ctx, client.List{All: true, Filters: client.Filters{"label": {workingLabel}}})
	if err != nil {
		return nil, err
	}
	out := make([]workingRow, 0, len(list))
	for _, c := range list {
		w := workingRow{ID: c.ID, ImageID: strings.TrimPrefix(c.ImageID, "sha256:"), ImageName: c.Labels[workingLabel]}
		if len(c.Names) > 0 {
			w.ContainerName = strings.TrimPrefix(c.Names[0], "/")
		}
		out = append(out, w)
	}
	return out, nil
}

func (a *App) workingRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "rm [OPTIONS] CONTAINER [CONTAINER...]"}
	all := c.Flags().BoolP("all", "a", false, "Remove all working containers")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		if *all {
			list, err := a.working(cmd.Context())
			if err != nil {
				return err
			}
			for _, w := range list {
				args = append(args, w.ID)
			}
		} else if len(args) == 0 {
			return errors.New("container ID must be specified")
		}
		return a.each(args, func(id string) (string, error) {
			d, err := api.ContainerInspect(cmd.Context(), id)
			if err != nil {
				return "", err
			}
			return d.ID, a.removeWorking(cmd.Context(), api, d.ID)
		})
	}
	return c
}

func (a *App) removeWorking(ctx context.Context, api *client.Client, container string) error {
	if _, err := a.unmount(ctx, api, container); err != nil {
		return err
	}
	d, err := api.ContainerInspect(ctx, container)
	if err != nil {
		return err
	}
	if err := api.ContainerRemove(ctx, container, true, true, false); err != nil || d.Config.Labels[workingLabel] != "scratch" {
		return err
	}
	// The image of nothing goes with it, unless somebody else has come to use it.
	_, _ = api.ImageRemove(ctx, d.Image, false, false)
	return nil
}

func (a *App) workingRenameCommand() *cobra.Command {
	c := &cobra.Command{Use: "rename CONTAINER NEW-NAME", Args: exactly(2)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return api.ContainerRename(cmd.Context(), args[0], args[1])
	}
	return c
}

// A mount of a working container is this command's: the engine need not know.

// mountPoint is where a container is mounted: beside its tree.
func mountPoint(upper string) string { return filepath.Join(filepath.Dir(upper), "merged") }

// tree is what a container's root is stacked of.
func tree(ctx context.Context, api *client.Client, container string) (lower, upper, work string, err error) {
	raw, err := api.ContainerInspectRaw(ctx, container, false)
	if err != nil {
		return "", "", "", err
	}
	var d struct {
		GraphDriver struct {
			Data struct{ LowerDir, UpperDir, WorkDir string }
		}
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return "", "", "", err
	}
	t := d.GraphDriver.Data
	if t.UpperDir == "" {
		return "", "", "", fmt.Errorf("container %s has no tree that can be mounted here", container)
	}
	return t.LowerDir, t.UpperDir, t.WorkDir, nil
}

func (a *App) mount(ctx context.Context, api *client.Client, container string) (string, error) {
	lower, upper, work, err := tree(ctx, api, container)
	if err != nil {
		return "", err
	}
	at := mountPoint(upper)
	if mounted(at) {
		return at, nil
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		return "", fmt.Errorf("mount container %s: %w", container, err)
	}
	options := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work + ",index=off"
	if err := unix.Mount("overlay", at, "overlay", 0, options); err != nil {
		return "", fmt.Errorf("mount container %s: %w", container, err)
	}
	return at, nil
}

// mounted tells whether something is mounted on a folder.
func mounted(at string) bool {
	var here, above unix.Stat_t
	return unix.Stat(at, &here) == nil && unix.Stat(filepath.Dir(at), &above) == nil && here.Dev != above.Dev
}

// unmount takes a mount away, which may still be in somebody's use; done tells
// whether there was one.
func (a *App) unmount(ctx context.Context, api *client.Client, container string) (done bool, err error) {
	_, upper, _, err := tree(ctx, api, container)
	if err != nil {
		return false, err
	}
	at := mountPoint(upper)
	if !mounted(at) {
		return false, nil
	}
	if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
		return false, fmt.Errorf("unmount container %s: %w", container, err)
	}
	return true, nil
}

// setAside unmounts a container until the function is called.
func (a *App) setAside(ctx context.Context, api *client.Client, container string) (again func() error, err error) {
	done, err := a.unmount(ctx, api, container)
	return func() error {
		if !done {
			return nil
		}
		_, err := a.mount(context.WithoutCancel(ctx), api, container)
		return err
	}, err
}

func (a *App) workingMountCommand() *cobra.Command {
	c := &cobra.Command{Use: "mount [CONTAINER...]"}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		api, err := a.client()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			list, err := a.working(ctx)
			if err != nil {
				return err
			}
			for _, w := range list {
				if _, upper, _, err := tree(ctx, api, w.ID); err == nil && mounted(mountPoint(upper)) {
					fmt.Fprintln(a.Out, w.ContainerName, mountPoint(upper))
				}
			}
			return nil
		}
		for _, id := range args {
			at, err := a.mount(ctx, api, id)
			if err != nil {
				return err
			}
			if len(args) > 1 {
				at = id + " " + at
			}
			fmt.Fprintln(a.Out, at)
		}
		return nil
	}
	return c
}

func (a *App) workingUmountCommand() *cobra.Command {
	c := &cobra.Command{Use: "umount CONTAINER [CONTAINER...]", Args: atLeast(1)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(id string) (string, error) {
			done, err := a.unmount(cmd.Context(), api, id)
			if err == nil && !done {
				err = fmt.Errorf("container %s is not mounted", id)
			}
			return id, err
		})
	}
	return c
}
