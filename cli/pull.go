package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"cale/client"
	"cale/image/shortname"

	"github.com/spf13/cobra"
)

// copyOutput copies a log or an output that ends by itself.
func copyOutput(out, errs io.Writer, r io.Reader, tty bool) error {
	if !tty {
		return client.Demultiplex(out, errs, r)
	}
	_, err := io.Copy(out, r)
	return err
}

// splitName takes NAME[:TAG][@DIGEST] apart.
func splitName(s string) (name, tag, digest string) {
	name, digest, _ = strings.Cut(s, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
	}
	return name, tag, digest
}

// withTag adds the usual tag to a name without one.
func withTag(s string) string {
	if _, tag, digest := splitName(s); tag == "" && digest == "" {
		return s + ":latest"
	}
	return s
}

// fullName adds the registry's address to a short name: Docker Hub's, if the
// settings that the engine reads on this machine do not say another.
func fullName(name string) string {
	if names, err := shortname.Load(envOr("CALE_CONFIG", "/etc/cale")); err == nil {
		name = names.Expand(name)
	}
	first, rest, ok := strings.Cut(name, "/")
	switch {
	case !ok:
		return "docker.io/library/" + name
	case strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first:
		if first == "index.docker.io" {
			first = "docker.io"
		}
		if first == "docker.io" && !strings.Contains(rest, "/") {
			return "docker.io/library/" + rest
		}
		return first + "/" + rest
	}
	return "docker.io/" + name
}

// pull pulls one image and shows its progress on w.
func (a *App) pull(ctx context.Context, api *client.Client, image, platform string, w io.Writer) error {
	name, tag, digest := splitName(image)
	switch {
	case digest != "":
		tag = digest
	case tag == "":
		tag = "latest"
	}
	r, err := api.ImagePull(ctx, name, tag, platform, a.auth(ctx, name))
	if err != nil {
		return err
	}
	defer r.Close()
	return showProgress(w, r, nil)
}

func (a *App) pullCommand() *cobra.Command {
	c := &cobra.Command{Use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", Args: exactly(1)}
	f := c.Flags()
	all := f.BoolP("all-tags", "a", false, "Download all tagged images in the repository")
	quiet := f.BoolP("quiet", "q", false, "Suppress verbose output")
	platform := f.String("platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), `Set platform if server is multi-platform capable; "all" keeps the image for every platform`)
	trust := f.Bool("disable-content-trust", true, "Skip image verification")
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
		case *all && (tag != "" || digest != ""):
			return errors.New("tag can't be used with --all-tags/-a")
		case *all:
			r, err := api.ImagePull(cmd.Context(), name, "", *platform, a.auth(cmd.Context(), name))
			if err != nil {
				return err
			}
			defer r.Close()
			if err := showProgress(out, r, nil); err != nil {
				return err
			}
			fmt.Fprintln(a.Out, fullName(name))
			return nil
		}
		if tag == "" && digest == "" {
			fmt.Fprintln(out, "Using default tag: latest")
		}
		if err := a.pull(cmd.Context(), api, args[0], *platform, out); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, fullName(withTag(args[0])))
		return nil
	}
	return c
}
