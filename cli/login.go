package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"cale/client"
	"cale/registry/credentials"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (a *App) loginCommand() *cobra.Command {
	c := &cobra.Command{Use: "login [OPTIONS] [SERVER]", Args: between(0, 1)}
	f := c.Flags()
	user := f.StringP("username", "u", "", "Username")
	password := f.StringP("password", "p", "", "Password or Personal Access Token (PAT)")
	fromStdin := f.Bool("password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		server := hub
		if len(args) == 1 {
			server = registryHost(args[0])
		}
		if *password != "" {
			fmt.Fprintln(a.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
			if *fromStdin {
				return errors.New("--password and --password-stdin are mutually exclusive")
			}
		}
		if *fromStdin {
			if *user == "" {
				return errors.New("the --password-stdin option requires --username to be set")
			}
			b, err := io.ReadAll(io.LimitReader(a.In, 64<<10))
			if err != nil {
				return err
			}
			*password = strings.TrimRight(string(b), "\r\n")
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		if *user == "" && *password == "" {
			if kept, err := keptAuth(ctx, server); err == nil && kept != nil {
				fmt.Fprintln(a.Out, "Authenticating with existing credentials...")
				status, _, err := api.Login(ctx, *kept)
				if err == nil {
					fmt.Fprintln(a.Out, status)
					return nil
				}
				if !client.IsUnauthorized(err) {
					return err
				}
				fmt.Fprintf(a.Err, "Stored credentials invalid or expired: %v\n", err)
			}
		}
		if err := a.askCredentials(user, password); err != nil {
			return err
		}
		auth := client.Auth{Username: *user, Password: *password, ServerAddress: credentials.Key(server)}
		status, token, err := api.Login(ctx, auth)
		if err != nil {
			return err
		}
		if token != "" {
			*user, *password = credentials.TokenUser, token
		}
		where, err := credentials.Set(ctx, server, *user, *password)
		if err != nil {
			return fmt.Errorf("saving credentials: %w", err)
		}
		if where != "" {
			fmt.Fprintf(a.Err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning.\n\n", where)
		}
		fmt.Fprintln(a.Out, status)
		return nil
	}
	return c
}

const hub = "docker.io"

// keptAuth returns the login that is kept for a registry, nil for none.
func keptAuth(ctx context.Context, host string) (*client.Auth, error) {
	user, password, err := credentials.Get(ctx, host)
	if err != nil || user == "" && password == "" {
		return nil, err
	}
	auth := &client.Auth{ServerAddress: credentials.Key(host)}
	if user == credentials.TokenUser {
		auth.IdentityToken = password
	} else {
		auth.Username, auth.Password = user, password
	}
	return auth, nil
}

// auth returns the login that is kept for a name's registry, nil for none. A
// pull may well work without one that can't be read, so that is only told.
func (a *App) auth(ctx context.Context, name string) *client.Auth {
	host, _, _ := strings.Cut(fullName(name), "/")
	auth, err := keptAuth(ctx, host)
	if err != nil {
		fmt.Fprintf(a.Err, "WARNING: no login is sent to %s: %v\n", host, err)
	}
	return auth
}

// registryHost is a registry's address without scheme and path.
func registryHost(s string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	s, _, _ = strings.Cut(s, "/")
	return s
}

// askCredentials asks at the terminal for what is missing.
func (a *App) askCredentials(user, password *string) error {
	if *user != "" && *password != "" {
		return nil
	}
	fd, ok := terminal(a.In)
	if !ok {
		return errors.New("cannot perform an interactive login from a non TTY device")
	}
	if *user == "" {
		fmt.Fprint(a.Out, "Username: ")
		line, err := readLine(a.In)
		if err != nil {
			return err
		}
		if *user = strings.TrimSpace(line); *user == "" {
			return errors.New("non-null username required")
		}
	}
	if *password == "" {
		fmt.Fprint(a.Out, "Password: ")
		b, err := term.ReadPassword(fd)
		fmt.Fprintln(a.Out)
		if err != nil {
			return err
		}
		if *password = string(b); *password == "" {
			return errors.New("password is required")
		}
	}
	return nil
}

func (a *App) logoutCommand() *cobra.Command {
	c := &cobra.Command{Use: "logout [SERVER]", Args: between(0, 1)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		server := hub
		if len(args) == 1 {
			server = registryHost(args[0])
		}
		name := credentials.Key(server)
		known, err := credentials.Erase(cmd.Context(), server)
		if err != nil {
			return fmt.Errorf("could not erase credentials: %w", err)
		}
		if !known {
			fmt.Fprintf(a.Out, "Not logged in to %s\n", name)
			return nil
		}
		fmt.Fprintf(a.Out, "Removing login credentials for %s\n", name)
		return nil
	}
	return c
}
