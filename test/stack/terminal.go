package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a command on a pseudo-terminal: what a person sees and types.
type Terminal struct {
	t    testing.TB
	cmd  *exec.Cmd
	ptm  *os.File
	done chan error

	mu   sync.Mutex
	seen []byte
}

// Terminal starts a command on a terminal of 24 rows and 80 columns.
func (s *Stack) Terminal(name string, args ...string) *Terminal {
	s.t.Helper()
	return OnTerminal(s.t, s.Command(context.Background(), name, args...))
}

// OnTerminal starts a command on a terminal of 24 rows and 80 columns.
func OnTerminal(tb testing.TB, cmd *exec.Cmd) *Terminal {
	tb.Helper()
	ptm, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ptm.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ptm.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		tb.Fatal(err)
	}
	pts, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer pts.Close()
	t := &Terminal{t: tb, cmd: cmd, ptm: ptm, done: make(chan error, 1)}
	t.Resize(24, 80)
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = pts, pts, pts
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := t.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := ptm.Read(buf)
			t.mu.Lock()
			t.seen = append(t.seen, buf[:n]...)
			t.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	timer := time.AfterFunc(2*Patience, func() { _ = t.cmd.Process.Kill() })
	go func() {
		err := t.cmd.Wait()
		timer.Stop()
		t.done <- err
	}()
	tb.Cleanup(func() { ptm.Close() })
	return t
}

// Type sends keys.
func (t *Terminal) Type(keys string) {
	t.t.Helper()
	if _, err := t.ptm.WriteString(keys); err != nil {
		t.t.Fatal(err)
	}
}

// Resize changes the terminal's size and tells its processes, as a window manager does.
func (t *Terminal) Resize(rows, cols uint16) {
	t.t.Helper()
	if err := unix.IoctlSetWinsize(int(t.ptm.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.t.Fatal(err)
	}
}

// Raw tells whether the terminal gives its process each key as it is typed.
func (t *Terminal) Raw() bool {
	t.t.Helper()
	s, err := unix.IoctlGetTermios(int(t.ptm.Fd()), unix.TCGETS)
	if err != nil {
		t.t.Fatal(err)
	}
	return s.Lflag&unix.ICANON == 0
}

// Signal sends the command a signal.
func (t *Terminal) Signal(s syscall.Signal) {
	t.t.Helper()
	if err := t.cmd.Process.Signal(s); err != nil {
		t.t.Fatal(err)
	}
}

// Screen is all that was shown so far.
func (t *Terminal) Screen() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.seen)
}

// Expect waits until text has been shown.
func (t *Terminal) Expect(text string) {
	t.t.Helper()
	deadline := time.Now().Add(Patience)
	for !strings.Contains(t.Screen(), text) {
		if time.Now().After(deadline) {
			t.t.Fatalf("the terminal never shows %q; it shows %q", text, t.Screen())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Exit waits for the command's end and returns its exit code.
func (t *Terminal) Exit() int {
	t.t.Helper()
	select {
	case <-t.done:
	case <-time.After(Patience):
		t.t.Fatalf("the command goes on; the terminal shows %q", t.Screen())
	}
	return t.cmd.ProcessState.ExitCode()
}
