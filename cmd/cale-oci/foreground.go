package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// foreground keeps this program between its terminal and a process: it relays a terminal, forwards signals, and
// takes the exit status over.
type foreground struct {
	console func(*os.File)
	masters chan *os.File
	saved   *unix.Termios
	copied  chan struct{}
}

func newForeground(ps *specs.Process, consoleSocket string) (*foreground, error) {
	f := &foreground{}
	if ps != nil && ps.Terminal && consoleSocket == "" {
		if err := hasTerminal(); err != nil {
			return nil, err
		}
		f.masters = make(chan *os.File, 1)
		f.console = func(m *os.File) {
			// As runc does: what the process writes arrives as it is, without carriage returns.
			if t, err := unix.IoctlGetTermios(int(m.Fd()), unix.TCGETS); err == nil {
				t.Oflag &^= unix.ONLCR
				unix.IoctlSetTermios(int(m.Fd()), unix.TCSETS, t)
			}
			f.masters <- m
		}
	}
	return f, nil
}

// hasTerminal fails unless there is a terminal that a process's own can be connected with.
func hasTerminal() error {
	for fd := range 3 {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			return nil
		}
	}
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("%w (the process wants a terminal: give it this program's, or a --console-socket)", err)
	}
	return f.Close()
}

// wait relays until the process has ended, and returns its status as a shell would.
func (f *foreground) wait(pid int, pidfd *os.File) int {
	resize := func() {}
	if f.masters != nil {
		master := <-f.masters
		resize = func() { copySize(master) }
		f.relay(master)
	}
	// Only now: it takes threads and a turn of them for each signal, while the process runs already. One that ends at
	// once goes without. A signal that came before has ended this program, and the process with it.
	if !ends(pidfd, 2*time.Millisecond) {
		signals := make(chan os.Signal, 64)
		signal.Notify(signals)
		go forward(signals, pidfd, resize)
		resize() // as it may have been resized before anybody listened
	}
	var ws unix.WaitStatus
	for {
		got, err := unix.Wait4(-1, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || got == pid {
			break // others are orphans that a subreaper inherits
		}
	}
	if f.copied != nil {
		// What the process has written still has to come out; others may hold the terminal open.
		select {
		case <-f.copied:
		case <-time.After(500 * time.Millisecond):
		}
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// ends tells whether a process ends within some time.
func ends(pidfd *os.File, within time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(within.Milliseconds()))
	return err == nil && n > 0
}

// relay copies between this program's terminal, in raw mode, and a terminal's master.
func (f *foreground) relay(master *os.File) {
	copySize(master)
	if t, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		f.saved = t
		raw := *t
		raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		raw.Oflag &^= unix.OPOST
		raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
		unix.IoctlSetTermios(0, unix.TCSETS, &raw)
	}
	go io.Copy(master, os.Stdin)
	f.copied = make(chan struct{})
	go func() {
		io.Copy(os.Stdout, master)
		close(f.copied)
	}()
}

func copySize(master *os.File) {
	if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, ws)
	}
}

// restore puts the terminal back.
func (f *foreground) restore() {
	if f.saved != nil {
		unix.IoctlSetTermios(0, unix.TCSETS, f.saved)
		f.saved = nil
	}
}
