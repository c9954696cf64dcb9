package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"cale/client"

	"github.com/spf13/cobra"
)

func (a *App) registryCommand() *cobra.Command {
	c := &cobra.Command{Use: "registry [OPTIONS]", Args: noArgs, Long: "Serve this engine's images as a registry. Without options, list the addresses served."}
	f := c.Flags()
	var how client.Registry
	f.StringVar(&how.Address, "listen", "", "Address to serve on (host:port; port 0 chooses one)")
	f.BoolVar(&how.ReadOnly, "read-only", false, "Let nobody push or delete")
	f.StringVar(&how.Htpasswd, "htpasswd", "", "Let the users of this file in, made by htpasswd -B, instead of those of the engine")
	f.StringVar(&how.Cert, "tls-cert", "", "Serve by TLS with the certificates in this file")
	f.StringVar(&how.Key, "tls-key", "", "File with the certificate's private key")
	f.StringVar(&how.Mirror, "mirror", "", "Mirror another registry: fetch from this host what is asked for, and keep it")
	quiet := f.BoolP("quiet", "q", false, "Only print the address")
	stop := f.String("stop", "", `Stop serving on an address, or "all"`)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case how.Address != "" && *stop != "":
			return errors.New("conflicting options: --listen and --stop")
		case how.Address == "" && how != (client.Registry{}):
			return errors.New("say with --listen where to serve")
		case (how.Cert == "") != (how.Key == ""):
			return errors.New("--tls-cert and --tls-key go together")
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		if how.Address != "" {
			for _, path := range []*string{&how.Htpasswd, &how.Cert, &how.Key} {
				if *path == "" {
					continue
				}
				// The engine has another working directory.
				if *path, err = filepath.Abs(*path); err != nil {
					return err
				}
			}
			address, err := api.RegistryServe(ctx, how)
			if err != nil {
				return err
			}
			if *quiet {
				fmt.Fprintln(a.Out, address)
			} else {
				fmt.Fprintf(a.Out, "Serving images on %s\n", address)
			}
			return nil
		}
		if *stop != "" && *stop != "all" {
			return api.RegistryStop(ctx, *stop)
		}
		served, err := api.RegistryList(ctx)
		if err != nil {
			return err
		}
		if *stop == "all" {
			var addresses []string
			for _, r := range served {
				addresses = append(addresses, r.Address)
			}
			return a.each(addresses, func(s string) (string, error) { return "", api.RegistryStop(ctx, s) })
		}
		for _, r := range served {
			if *quiet {
				fmt.Fprintln(a.Out, r.Address)
			} else {
				fmt.Fprintln(a.Out, r.Address+registryNotes(r))
			}
		}
		return nil
	}
	return c
}

// registryNotes says what is special about a registry that is served.
func registryNotes(r client.Registry) string {
	var notes []string
	if r.Cert != "" {
		notes = append(notes, "TLS")
	}
	if r.Htpasswd != "" {
		notes = append(notes, "users of "+r.Htpasswd)
	}
	if r.Mirror != "" {
		notes = append(notes, "mirror of "+r.Mirror)
	} else if r.ReadOnly {
		notes = append(notes, "read-only")
	}
	if len(notes) == 0 {
		return ""
	}
	return "  (" + strings.Join(notes, ", ") + ")"
}
