package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"cale/client"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manifestCommands are Docker's, but that the engine keeps the lists, as images
// of several platforms, and the images in them are to be there too.
func manifestCommands() []entry {
	return []entry{
		{name: "annotate", short: "Add additional information to a local image manifest", build: (*App).manifestAnnotateCommand},
		{name: "create", short: "Create a local manifest list for annotating and pushing to a registry", build: (*App).manifestCreateCommand},
		{name: "inspect", short: "Display an image manifest, or manifest list", build: (*App).manifestInspectCommand},
		{name: "push", short: "Push a manifest list to a repository", build: (*App).manifestPushCommand},
		{name: "rm", short: "Delete one or more manifest lists from local storage", build: (*App).manifestRmCommand},
	}
}

// insecure is a flag of Docker's that decides here nothing: settings do.
func insecure(f *pflag.FlagSet) func() error {
	on := f.Bool("insecure", false, "Allow communication with an insecure registry (say so in certs.d instead)")
	return func() error {
		if *on {
			return errors.New("--insecure: registries without TLS or with unknown certificates are set up in certs.d/HOST/hosts.toml")
		}
		return nil
	}
}

func (a *App) manifestInspectCommand() *cobra.Command {
	c := &cobra.Command{Use: "inspect [OPTIONS] MANIFEST", Args: exactly(1), ValidArgsFunction: a.completeImages}
	secure := insecure(c.Flags())
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := secure(); err != nil {
			return err
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		raw, err := api.ManifestInspect(cmd.Context(), args[0], a.auth(cmd.Context(), args[0]))
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if err := json.Indent(&out, raw, "", "\t"); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, out.String())
		return nil
	}
	return c
}

func (a *App) manifestCreateCommand() *cobra.Command {
	c := &cobra.Command{Use: "create [OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]", Args: atLeast(2), ValidArgsFunction: a.completeImages}
	f := c.Flags()
	amend := f.BoolP("amend", "a", false, "Amend an existing manifest list")
	secure := insecure(f)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := secure(); err != nil {
			return err
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		if _, err := api.ManifestCreate(cmd.Context(), args[0], args[1:], *amend); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, "Created manifest list "+fullName(withTag(args[0])))
		return nil
	}
	return c
}

func (a *App) manifestAnnotateCommand() *cobra.Command {
	c := &cobra.Command{Use: "annotate [OPTIONS] MANIFEST_LIST MANIFEST", Args: exactly(2), ValidArgsFunction: a.completeImages}
	f := c.Flags()
	var p client.ManifestPlatform
	f.StringVar(&p.Architecture, "arch", "", "Set architecture")
	f.StringVar(&p.OS, "os", "", "Set operating system")
	f.StringVar(&p.OSVersion, "os-version", "", "Set operating system version")
	f.StringVar(&p.Variant, "variant", "", "Set architecture variant")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		_, err = api.ManifestAnnotate(cmd.Context(), args[0], args[1], p)
		return err
	}
	return c
}

func (a *App) manifestPushCommand() *cobra.Command {
	c := &cobra.Command{Use: "push [OPTIONS] MANIFEST_LIST", Args: exactly(1), ValidArgsFunction: a.completeImages}
	f := c.Flags()
	purge := f.BoolP("purge", "p", false, "Remove the local manifest list after push")
	secure := insecure(f)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := secure(); err != nil {
			return err
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		name, tag, digest := splitName(withTag(args[0]))
		if digest != "" {
			return errors.New("cannot push a digest reference")
		}
		r, err := api.ImagePush(cmd.Context(), name, tag, "", a.auth(cmd.Context(), name))
		if err != nil {
			return err
		}
		defer r.Close()
		if err := showProgress(io.Discard, r, nil); err != nil {
			return err
		}
		pushed, err := api.ImageDigest(cmd.Context(), args[0], a.auth(cmd.Context(), name))
		if err != nil {
			return err
		}
		fmt.Fprintln(a.Out, pushed)
		if *purge {
			_, err = api.ImageRemove(cmd.Context(), args[0], false, true)
		}
		return err
	}
	return c
}

func (a *App) manifestRmCommand() *cobra.Command {
	c := &cobra.Command{Use: "rm MANIFEST_LIST [MANIFEST_LIST...]", Args: atLeast(1), ValidArgsFunction: a.completeImages}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(name string) (string, error) {
			_, err := api.ImageRemove(cmd.Context(), name, false, true)
			return name, err
		})
	}
	return c
}
