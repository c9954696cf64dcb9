package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"time"

	"cale/cli/option"
	"cale/client"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// session joins the user's streams with those of a process.
type session struct {
	stream *client.Stream
	in     io.Reader // nil when input is not attached
	out    io.Writer // nil drops it
	err    io.Writer
	tty    bool
	keys   string          // detach keys, empty for the usual ones
	forced <-chan struct{} // ends the session at once
}

// errForced is a user who sent three signals that did not end the process.
var errForced = &Exit{Code: 1, Message: "got 3 SIGTERM/SIGINTs, forcefully exiting"}

// run copies until the process's output ends, the user types the detach keys
// (option.ErrDetached) or the context ends. A terminal is raw meanwhile.
func (s *session) run(ctx context.Context) error {
	input := make(chan error, 1)
	if s.in != nil {
		in := s.in
		if s.tty {
			keys, err := option.DetachKeys(s.keys)
			if err != nil {
				return err
			}
			if fd, ok := terminal(in); ok {
				old, err := term.MakeRaw(fd)
				if err != nil {
					return err
				}
				defer term.Restore(fd, old)
			}
			in = &option.KeyReader{R: in, Keys: keys}
		}
		go func() { input <- s.copyIn(in) }()
	}
	output := make(chan error, 1)
	go func() { output <- s.copyOut() }()
	for {
		select {
		case err := <-output:
			return err
		case err := <-input:
			if errors.Is(err, option.ErrDetached) {
				return err
			}
			if s.out == nil && s.err == nil {
				return nil // only input was wanted
			}
			input = nil
		case <-s.forced:
			return errForced
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// copyIn sends input until it ends. A process that no longer reads is no
// error: its output tells the rest.
func (s *session) copyIn(in io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if _, werr := s.stream.Write(buf[:n]); werr != nil {
				return nil
			}
		}
		if errors.Is(err, option.ErrDetached) {
			return err
		}
		if err != nil {
			s.stream.CloseWrite()
			return nil
		}
	}
}

func (s *session) copyOut() error {
	if !s.tty {
		return client.Demultiplex(s.out, s.err, s.stream)
	}
	out := s.out
	if out == nil {
		out = io.Discard
	}
	_, err := io.Copy(out, s.stream)
	return err
}

// terminalSize returns the size of the terminal behind a stream.
func terminalSize(stream any) (width, height uint, ok bool) {
	fd, ok := terminal(stream)
	if !ok {
		return 0, 0, false
	}
	w, h, err := term.GetSize(fd)
	if err != nil || w == 0 && h == 0 {
		return 0, 0, false
	}
	return uint(w), uint(h), true
}

// followSize gives a process's terminal the size of ours, now and whenever it
// changes, until stop is called. The process may not be there yet at first.
func (a *App) followSize(ctx context.Context, resize func(ctx context.Context, w, h uint) error) (stop func()) {
	if _, _, ok := terminalSize(a.Out); !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	change := make(chan os.Signal, 1)
	signal.Notify(change, unix.SIGWINCH)
	go func() {
		for try := 0; try < 10; try++ {
			w, h, ok := terminalSize(a.Out)
			if !ok || resize(ctx, w, h) == nil || ctx.Err() != nil {
				break
			}
			time.Sleep(time.Duration(try+1) * 10 * time.Millisecond)
		}
		for {
			select {
			case <-change:
				if w, h, ok := terminalSize(a.Out); ok {
					resize(ctx, w, h)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { signal.Stop(change); cancel() }
}

// proxied are the signals that a foreground command passes to its container.
var proxied = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTERM,
	unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGVTALRM, unix.SIGPROF, unix.SIGIO, unix.SIGPWR}

// proxySignals passes our signals to a container until stop is called. The
// third SIGINT or SIGTERM closes forced.
func proxySignals(ctx context.Context, c *client.Client, id string) (forced <-chan struct{}, stop func()) {
	signals := make(chan os.Signal, 32)
	signal.Notify(signals, proxied...)
	give := make(chan struct{})
	done := make(chan struct{})
	go func() {
		ends := 0
		for {
			select {
			case s := <-signals:
				if s == unix.SIGINT || s == unix.SIGTERM {
					if ends++; ends == 3 {
						close(give)
					}
				}
				// A container that is gone, or not started yet, cannot be
				// told; its end shows in its output.
				go c.ContainerKill(ctx, id, unix.SignalName(s.(unix.Signal)))
			case <-done:
				return
			}
		}
	}()
	return give, func() { signal.Stop(signals); close(done) }
}
