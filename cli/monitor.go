package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"cale/cli/format"
	"cale/client"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func (a *App) monitorCommand() *cobra.Command {
	c := &cobra.Command{Use: "monitor [OPTIONS] [CONTAINER...]", ValidArgsFunction: a.completeContainers(true)}
	c.Long = "Watch what containers use and how they fare, live on a terminal.\n\nKeys: " + monitorKeys + "."
	f := c.Flags()
	all := f.BoolP("all", "a", false, "Show all containers (default shows just running)")
	names := make([]string, len(format.Orders))
	for i, o := range format.Orders {
		names[i] = o.Name
	}
	by := f.String("sort", "cpu", "Sort by "+strings.Join(names, ", "))
	c.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	every := f.Duration("interval", time.Second, "Time between two looks")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		m := &monitor{app: a, all: *all, names: args}
		found := false
		for _, o := range format.Orders {
			if o.Name == *by {
				m.by, found = o, true
			}
		}
		if !found {
			return fmt.Errorf("invalid --sort %q: one of %s", *by, strings.Join(names, ", "))
		}
		if *every < 100*time.Millisecond {
			return errors.New("invalid --interval: at least 100ms")
		}
		in, ok := terminal(a.In)
		out, _, shown := terminalSize(a.Out)
		if !ok || !shown || out == 0 {
			return errors.New("monitor needs a terminal; `cale stats` goes without one")
		}
		var err error
		if m.api, err = a.client(); err != nil {
			return err
		}
		return m.run(cmd.Context(), in, *every)
	}
	return c
}

const monitorKeys = "c cpu, m memory, w pressure (waiting), i I/O, n network, p pids, a name, r reverse, up and down choose, l logs, q quit"

// monitor is the live view of containers.
type monitor struct {
	app     *App
	api     *client.Client
	all     bool
	names   []string // the ones to show; all if empty
	by      format.Order
	reverse bool

	meters  *meters
	list    []client.Container
	trouble string // what the engine last failed with
	rows    []format.Watched
	chosen  string // id of the row under the cursor
}

// What a terminal is told: the other screen and back, no cursor and a cursor.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

// run shows until the user quits. However it ends, the terminal is as it was.
func (m *monitor) run(ctx context.Context, fd int, every time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.meters = &meters{of: map[string]*meter{}}
	if err := m.look(ctx); err != nil {
		return err
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return err
	}
	m.print(enterScreen)
	restore := func() {
		m.print(leaveScreen)
		term.Restore(fd, old)
	}
	defer restore()
	keys := make(chan byte, 16)
	go readKeys(m.app.In, keys)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGWINCH, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		m.draw()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-signals:
			if s != unix.SIGWINCH {
				return &Exit{Code: 128 + int(s.(unix.Signal))}
			}
		case <-tick.C:
			m.trouble = ""
			if err := m.look(ctx); err != nil {
				m.trouble = err.Error()
			}
		case k, more := <-keys:
			switch {
			case !more || k == 'q' || k == 3 || k == 4: // the terminal is gone, ^C, ^D
				return nil
			case k == 26: // ^Z, which a raw terminal makes no signal
				restore()
				unix.Kill(0, unix.SIGTSTP)
				if _, err := term.MakeRaw(fd); err != nil {
					return err
				}
				m.print(enterScreen)
			case k == 'l' || k == '\r':
				if err := m.logs(ctx, keys); err != nil {
					m.trouble = err.Error()
				}
			default:
				m.key(k)
			}
		}
	}
}

func (m *monitor) print(text string) { io.WriteString(m.app.Out, text) }

// Keys that terminals send as several bytes.
const (
	keyUp   = 0x80
	keyDown = 0x81
)

// readKeys sends what is typed until the terminal is gone.
func readKeys(in io.Reader, keys chan<- byte) {
	defer close(keys)
	buf := make([]byte, 64)
	for {
		n, err := in.Read(buf)
		text := string(buf[:n])
		for _, s := range []struct {
			sent string
			key  byte
		}{{"\x1b[A", keyUp}, {"\x1bOA", keyUp}, {"\x1b[B", keyDown}, {"\x1bOB", keyDown}} {
			text = strings.ReplaceAll(text, s.sent, string([]byte{s.key}))
		}
		for i := range len(text) {
			keys <- text[i]
		}
		if err != nil {
			return
		}
	}
}

func (m *monitor) key(k byte) {
	switch k {
	case 'r':
		m.reverse = !m.reverse
	case 'j', keyDown:
		m.move(1)
	case 'k', keyUp:
		m.move(-1)
	}
	for _, o := range format.Orders {
		if o.Key == k {
			m.by = o
		}
	}
}

func (m *monitor) move(by int) {
	for i, r := range m.rows {
		if r.ID == m.chosen {
			m.chosen = m.rows[min(max(i+by, 0), len(m.rows)-1)].ID
			return
		}
	}
}

// look asks which containers there are, and has each that runs measured.
func (m *monitor) look(ctx context.Context) error {
	list, err := m.api.ContainerList(ctx, client.List{All: m.all || len(m.names) > 0})
	if err != nil {
		return err
	}
	if len(m.names) > 0 {
		if list, err = m.named(ctx, list); err != nil {
			return err
		}
	}
	m.list = list
	there := map[string]bool{}
	for _, c := range list {
		if c.State == "running" || c.State == "paused" {
			there[c.ID] = true
			m.meters.follow(ctx, m.api, c.ID, true)
		}
	}
	m.meters.keep(there)
	return nil
}

// named leaves the containers that were asked for. One that is gone is no
// error, if there was one at first.
func (m *monitor) named(ctx context.Context, list []client.Container) ([]client.Container, error) {
	if m.list == nil {
		for i, name := range m.names {
			d, err := m.api.ContainerInspect(ctx, name)
			if err != nil {
				return nil, err
			}
			m.names[i] = d.ID
		}
	}
	var out []client.Container
	for _, c := range list {
		for _, id := range m.names {
			if c.ID == id {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

// draw writes the whole screen over what is there.
func (m *monitor) draw() {
	width, height, ok := terminalSize(m.app.Out)
	if !ok {
		return
	}
	m.gather()
	room := max(int(height)-3, 1)
	at := 0
	for i, r := range m.rows {
		if r.ID == m.chosen {
			at = i
		}
	}
	if len(m.rows) > 0 {
		m.chosen = m.rows[at].ID
	}
	first := max(0, at-room+1)
	names := 12
	for _, r := range m.rows {
		names = min(max(names, len(r.Name)), 30)
	}
	order := m.by.Name
	if m.reverse {
		order += " reversed"
	}
	var b strings.Builder
	line := func(style, text string) {
		if len(text) > int(width) {
			text = text[:width]
		}
		b.WriteString(style + text + "\x1b[0m\x1b[K")
	}
	b.WriteString("\x1b[H")
	line("\x1b[1m", fmt.Sprintf("%s  %d containers, by %s  %s", time.Now().Format(time.TimeOnly), len(m.rows), order, m.trouble))
	b.WriteString("\r\n")
	line("\x1b[7m", format.WatchedHeader(names))
	for _, r := range m.rows[first:min(first+room, len(m.rows))] {
		b.WriteString("\r\n")
		style := ""
		if r.ID == m.chosen {
			style = "\x1b[1m"
		}
		line(style, r.Line(names))
	}
	b.WriteString("\x1b[J")
	fmt.Fprintf(&b, "\x1b[%d;1H", height)
	line("\x1b[2m", monitorKeys)
	m.print(b.String())
}

// gather makes the rows of what is known.
func (m *monitor) gather() {
	m.rows = m.rows[:0]
	for _, c := range m.list {
		name := format.ShortID(c.ID)
		if len(c.Names) > 0 {
			name = strings.TrimPrefix(c.Names[0], "/")
		}
		var last, before client.Stats
		m.meters.mu.Lock()
		of := m.meters.of[c.ID]
		m.meters.mu.Unlock()
		if of != nil {
			of.mu.Lock()
			last, before = of.last, of.before
			of.mu.Unlock()
		}
		m.rows = append(m.rows, format.NewWatched(c.ID, name, c.Status, c.RestartCount, last, before))
	}
	format.SortWatched(m.rows, m.by, m.reverse)
}

// logs shows the chosen container's log on the usual screen until a key ends
// it.
func (m *monitor) logs(ctx context.Context, keys <-chan byte) error {
	if m.chosen == "" {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d, err := m.api.ContainerInspect(ctx, m.chosen)
	if err != nil {
		return err
	}
	r, err := m.api.ContainerLogs(ctx, m.chosen, client.Logs{Follow: true, Tail: "200"})
	if err != nil {
		return err
	}
	m.print(leaveScreen + fmt.Sprintf("\x1b[1mlog of %s, q to go back\x1b[0m\r\n", strings.TrimPrefix(d.Name, "/")))
	defer m.print(enterScreen)
	w := &rawWriter{w: m.app.Out}
	done := make(chan error, 1)
	go func() { done <- copyOutput(w, w, r, d.Config.Tty) }()
	defer func() {
		r.Close()
		<-done // nothing of it on the other screen
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case k, more := <-keys:
			if !more || strings.IndexByte("ql\r\x1b\x03", k) >= 0 {
				return nil
			}
		}
	}
}

// rawWriter ends lines as a raw terminal needs it.
type rawWriter struct{ w io.Writer }

func (r *rawWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(r.w, strings.ReplaceAll(string(p), "\n", "\r\n")); err != nil {
		return 0, err
	}
	return len(p), nil
}
