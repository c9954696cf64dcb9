package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"strings"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// shell gives the user a shell in the step that failed: its files as they were
// left, its mounts, variables and user. What is done there is thrown away.
func (f *flags) shell(ctx context.Context, s Streams, g gateway.Client, failed error) error {
	var e *errdefs.SolveError
	if !errors.As(failed, &e) {
		return nil // no step failed
	}
	op, ok := e.Op.GetOp().(*pb.Op_Exec)
	if !ok || len(e.MountIDs) < len(op.Exec.Mounts) {
		fmt.Fprintln(s.Err, "cale: no shell: what failed is not a step that runs a program")
		return nil
	}
	exec := op.Exec
	req := gateway.NewContainerRequest{
		Hostname: exec.Meta.Hostname, NetMode: exec.Network, ExtraHosts: exec.Meta.ExtraHosts, Platform: e.Op.Platform, Constraints: e.Op.Constraints,
	}
	for i, m := range exec.Mounts {
		req.Mounts = append(req.Mounts, gateway.Mount{
			Selector: m.Selector, Dest: m.Dest, ResultID: e.MountIDs[i], Readonly: m.Readonly, MountType: m.MountType,
			CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt, SSHOpt: m.SSHOpt,
		})
	}
	c, err := g.NewContainer(ctx, req)
	if err != nil {
		return fmt.Errorf("a shell in the failed step: %w", err)
	}
	fmt.Fprintf(s.Err, "cale: a shell in the step that failed: %s\n", strings.Join(exec.Meta.Args, " "))
	start := gateway.StartRequest{
		Args: []string{shellOf(exec.Meta.Args)}, Env: exec.Meta.Env, SecretEnv: exec.Secretenv, User: exec.Meta.User, Cwd: exec.Meta.Cwd,
		SecurityMode: exec.Security, Stdin: io.NopCloser(s.In), Stdout: unclosed{s.Out}, Stderr: unclosed{s.Err},
	}
	err = interact(ctx, s, c, start)
	return errors.Join(err, c.Release(context.WithoutCancel(ctx)))
}

// shellOf is the shell that a step was run by, or the usual one.
func shellOf(args []string) string {
	if len(args) > 2 && strings.HasPrefix(args[1], "-") && strings.HasSuffix(path.Base(args[0]), "sh") {
		return args[0]
	}
	return "/bin/sh"
}

// interact runs a process with this command's streams, which are a terminal if
// they are one here.
func interact(ctx context.Context, s Streams, c gateway.Container, start gateway.StartRequest) error {
	in, ok := s.In.(*os.File)
	start.Tty = ok && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(s.Out.Fd()))
	if start.Tty {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(int(in.Fd()), before) }()
		start.Stderr = nil
	}
	p, err := c.Start(ctx, start)
	if err != nil {
		return fmt.Errorf("a shell in the failed step: %w", err)
	}
	if start.Tty {
		defer resizes(ctx, s.Out, p)()
	}
	var exit *gatewayapi.ExitError
	// How the shell ended says nothing about the build.
	if err := p.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// resizes tells a process of its terminal's size until the function is called.
func resizes(ctx context.Context, out *os.File, p gateway.ContainerProcess) (end func()) {
	changed := make(chan os.Signal, 1)
	changed <- unix.SIGWINCH
	signal.Notify(changed, unix.SIGWINCH)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				if w, h, err := term.GetSize(int(out.Fd())); err == nil {
					_ = p.Resize(ctx, gateway.WinSize{Rows: uint32(h), Cols: uint32(w)})
				}
			}
		}
	}()
	return func() { signal.Stop(changed); cancel() }
}

// unclosed is a stream that outlives what writes to it.
type unclosed struct{ io.Writer }

// Close implements io.Closer.
func (unclosed) Close() error { return nil }

// untilFailed passes the builder's status on to what shows it, until last is
// called, which waits for the end of that.
func untilFailed(from <-chan *client.SolveStatus, shown <-chan struct{}) (to chan *client.SolveStatus, last func()) {
	to = make(chan *client.SolveStatus)
	stop := make(chan struct{})
	go func() {
		defer close(to)
		for {
			select {
			case v, ok := <-from:
				if !ok {
					return
				}
				to <- v
			case <-stop:
				go func() {
					for range from {
					}
				}()
				return
			}
		}
	}()
	return to, func() {
		close(stop)
		<-shown
	}
}
