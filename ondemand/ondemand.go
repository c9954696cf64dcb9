// Package ondemand starts one of our programs when somebody first needs the
// socket that it serves.
package ondemand

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
)

const (
	startTimeout = 30 * time.Second // for the program to open its socket
	startAgain   = 500 * time.Millisecond
	logTail      = 2 << 10 // bytes of the log shown when it fails
)

// Program is a program and the socket that it serves.
type Program struct {
	What   string   // for people: "the engine"
	Name   string   // of its file, beside this program or in $PATH
	Args   []string // without its name; the program ends with success if another one serves already
	Socket string   // absolute
	Log    string   // a file in the socket's directory that its standard output and error are added to
	Say    io.Writer
}

// Dial connects to the socket and starts the program when nothing listens.
func (p *Program) Dial(ctx context.Context) (net.Conn, error) {
	c, err := p.Connect(ctx)
	if err == nil || !NotRunning(err) {
		return c, err
	}
	return p.start(ctx)
}

// Connect is Dial for a program that must be running.
func (p *Program) Connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", p.Socket)
}

// NotRunning tells a program that is not there from one that must not be
// reached.
func NotRunning(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

func (p *Program) start(ctx context.Context) (net.Conn, error) {
	binary, err := Find(p.Name)
	if err != nil {
		return nil, fmt.Errorf("nothing listens on %s, and %s cannot be started: %w", p.Socket, p.What, err)
	}
	if err := os.MkdirAll(filepath.Dir(p.Socket), 0o700); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.What, err)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.What, err)
	}
	defer log.Close()
	begin, _ := log.Seek(0, io.SeekEnd)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	if p.Say != nil {
		fmt.Fprintf(p.Say, "cale: starting %s (%s)\n", p.What, p.Name)
	}
	exited := make(chan string, 1)
	start := func() error {
		// A session of its own: the terminal's signals are not the program's.
		attr := &os.ProcAttr{Dir: "/", Env: os.Environ(), Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true}}
		proc, err := os.StartProcess(binary, append([]string{binary}, p.Args...), attr)
		if err != nil {
			return fmt.Errorf("starting %s %s: %w", p.What, binary, err)
		}
		go func() {
			switch state, err := proc.Wait(); {
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
	why := fmt.Sprintf("did not open %s within %v", p.Socket, startTimeout)
	for wait := time.Millisecond; time.Now().Before(deadline); wait = min(wait*2, 50*time.Millisecond) {
		c, err := p.Connect(ctx)
		if err == nil || !NotRunning(err) {
			return c, err
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
	return nil, fmt.Errorf("%s %s %s%s", p.What, binary, why, tail(p.Log, begin))
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

// Find looks for one of our programs beside this one, then in $PATH.
func Find(name string) (string, error) {
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

// Engine is caled, the engine below root and run.
func Engine(root, run string) *Program {
	return &Program{
		What: "the engine", Name: "caled",
		Args:   []string{"--root", root, "--run", run, "--idle", "10m", "--on-demand"},
		Socket: filepath.Join(run, "docker.sock"), Log: filepath.Join(run, "caled.log"),
	}
}

// Builder is cale-build, the builder below root and run.
func Builder(root, run string) *Program {
	return &Program{
		What: "the builder", Name: "cale-build",
		Args:   []string{"serve", "--root", root, "--run", run, "--idle", "5m", "--on-demand"},
		Socket: filepath.Join(run, "build.sock"), Log: filepath.Join(run, "build.log"),
	}
}
