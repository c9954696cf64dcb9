package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"cale/client"
	"cale/ondemand"
)

// dialEngine connects to this machine's engine and starts it when nothing
// listens.
func (a *App) dialEngine(ctx context.Context) (net.Conn, error) {
	root, err := filepath.Abs(a.root)
	if err != nil {
		return nil, err
	}
	p := ondemand.Engine(root, a.run)
	p.Say = a.Err
	c, err := p.Dial(ctx)
	var op *net.OpError
	if errors.As(err, &op) {
		return nil, explain("unix://"+p.Socket, err)
	}
	return c, err
}

func explainDial(host string, dial func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx)
		return c, explain(host, err)
	}
}

// explain words a failed connection for the user.
func explain(host string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("permission denied while connecting to the engine at %s", host)
	case ondemand.NotRunning(err):
		return fmt.Errorf("cannot connect to the engine at %s: is it running?", host)
	}
	return fmt.Errorf("cannot connect to the engine at %s: %w", host, err)
}

// dialStdioCommand is the end of a client's connection by ssh.
func (a *App) dialStdioCommand() *cobra.Command {
	c := &cobra.Command{Use: "dial-stdio", Args: noArgs}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		dial := a.dialEngine
		if a.host != "" {
			d, err := client.Dialer(a.host)
			if err != nil {
				return err
			}
			dial = explainDial(a.host, d)
		}
		conn, err := dial(cmd.Context())
		if err != nil {
			return err
		}
		defer conn.Close()
		go func() {
			io.Copy(conn, a.In)
			if w, ok := conn.(interface{ CloseWrite() error }); ok {
				w.CloseWrite()
			}
		}()
		_, err = io.Copy(a.Out, conn)
		return err
	}
	return c
}
