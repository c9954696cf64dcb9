package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"cale/client"
)

const (
	startTimeout = 30 * time.Second // for the engine to open its socket
	startAgain   = 500 * time.Millisecond
	logTail      = 2 << 10 // bytes of the engine's log shown when it fails
	idleEnd      = "10m"   // an engine started on demand ends after so long with nothing to do
)

// dialEngine connects to this machine's engine and starts it when nothing
// listens.
func (a *App) dialEngine(ctx context.Context) (net.Conn, error) {
	socket := filepath.Join(a.run, "docker.sock")
	dial, err := client.Dialer("unix://" + socket)
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx)
	if err == nil || !notRunning(err) {
		return c, explain("unix://"+socket, err)
	}
	return a.startEngine(ctx, dial)
}

// notRunning tells an engine that is not there from one that must not be
// reached.
func notRunning(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

func (a *App) startEngine(ctx context.Context, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	binary, err := findBeside("caled")
	if err != nil {
		return nil, fmt.Errorf("no engine listens on %s and none can be started: %w", filepath.Join(a.run, "docker.sock"), err)
	}
	if err := os.MkdirAll(a.run, 0o700); err != nil {
		return nil, fmt.Errorf("starting the engine: %w", err)
	}
	logName := filepath.Join(a.run, "caled.log")
	log, err := os.OpenFile(logName, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting the engine: %w", err)
	}
	defer log.Close()
	begin, _ := log.Seek(0, io.SeekEnd)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	root, err := filepath.Abs(a.root)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(a.Err, "cale: starting the engine (caled)")
	exited := make(chan string, 1)
	start := func() error {
		// A session of its own: the terminal's signals are not the engine's.
		p, err := os.StartProcess(binary, []string{binary, "--root", root, "--run", a.run, "--idle", idleEnd, "--on-demand"}, &os.ProcAttr{
			Dir: "/", Env: os.Environ(), Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true}})
		if err != nil {
			return fmt.Errorf("starting the engine %s: %w", binary, err)
		}
		go func() {
			switch state, err := p.Wait(); {
			case err != nil:
				exited <- err.Error()
			case state.Success():
				exited <- ""
			default:
				exited <- state.String()
			}
		}()
		return nil
	}
	if err := start(); err != nil {
		return nil, err
	}
	var again <-chan time.Time
	deadline := time.Now().Add(startTimeout)
	why := fmt.Sprintf("did not open %s within %v", filepath.Join(a.run, "docker.sock"), startTimeout)
	for wait := time.Millisecond; time.Now().Before(deadline); wait = min(wait*2, 50*time.Millisecond) {
		c, err := dial(ctx)
		if err == nil {
			return c, nil
		}
		if !notRunning(err) {
			return nil, explain("unix://"+filepath.Join(a.run, "docker.sock"), err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-again:
			again = nil
			if err := start(); err != nil {
				return nil, err
			}
		case how := <-exited:
			if how == "" {
				// It gave way to another one, which will open its socket, or
				// is about to end: then it is our turn.
				again = time.After(startAgain)
				continue
			}
			// There may be one that another command started: its socket is
			// still given a second.
			why = "ended (" + how + ")"
			if d := time.Now().Add(time.Second); d.Before(deadline) {
				deadline = d
			}
		case <-time.After(wait):
		}
	}
	return nil, fmt.Errorf("the engine %s %s%s", binary, why, tail(logName, begin))
}

// tail returns what was written to a log since an offset, as an addition to an
// error.
func tail(name string, since int64) string {
	f, err := os.Open(name)
	if err != nil {
		return "; no log: " + err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size()-since > logTail {
		since = st.Size() - logTail
	}
	b, _ := io.ReadAll(io.NewSectionReader(f, since, logTail))
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "; it wrote nothing to " + name
	}
	return "; " + name + " ends with:\n" + text
}

// findBeside looks for one of our programs beside this one, then in PATH.
func findBeside(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(self), name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside cale nor in $PATH", name)
	}
	return filepath.Abs(p)
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
	case notRunning(err):
		return fmt.Errorf("cannot connect to the engine at %s: is it running?", host)
	}
	return fmt.Errorf("cannot connect to the engine at %s: %w", host, err)
}
