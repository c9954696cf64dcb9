package stdio

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Console takes over the master of the process's terminal.
func (o *IO) Console(master *os.File) {
	f, err := dupPollable(master)
	master.Close()
	if err != nil {
		return
	}
	o.mu.Lock()
	o.console = f
	if o.size.Row != 0 || o.size.Col != 0 {
		o.resizeLocked()
	}
	if o.wantsStdin() {
		o.stdin = f
	}
	o.mu.Unlock()
	if len(o.outputs) > 0 {
		o.outputs[0].src = f
	}
}

// ErrNoTerminal refuses to resize a process without terminal.
var ErrNoTerminal = errors.New("the process has no terminal")

// Resize sets the terminal's size in characters. A size that comes before the
// terminal does is kept for it.
func (o *IO) Resize(width, height uint16) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.req.Terminal {
		return ErrNoTerminal
	}
	o.size = unix.Winsize{Row: height, Col: width}
	if o.console == nil {
		return nil
	}
	return o.resizeLocked()
}

func (o *IO) resizeLocked() error {
	rc, err := o.console.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &o.size)
	})
	return errors.Join(cerr, err)
}

// Size returns the size asked for last, zeros for none.
func (o *IO) Size() (width, height uint16) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.size.Col, o.size.Row
}
