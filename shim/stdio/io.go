package stdio

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cale/logfile"
)

type syscallConn = syscall.RawConn

// Request says where the streams of a process go: what Create and Exec carry.
type Request struct {
	Container, Exec       string
	Terminal              bool
	Stdin, Stdout, Stderr string
}

// IO is the input and output of one process.
//
// Its life: Open, then Child's files (or Console) go to the runtime, Run begins
// the relaying, Exited drains what the dead process left, Close frees all. Close
// alone is enough when the process could not be made.
type IO struct {
	req  Request
	hubs *Hubs
	hub  *hub // nil without an attach socket
	uri  URI
	log  *logfile.Writer

	child   [3]*os.File // the process's ends; nil for /dev/null
	outputs []*output
	fifo    *fifoInput // the containerd client's stdin fifo
	limit   time.Duration

	mu       sync.Mutex
	stdin    *os.File // pipe's writing end or the terminal's master
	console  *os.File
	size     unix.Winsize // asked for before there was a terminal
	clients  map[*client]struct{}
	closing  func() // told when the input is closed while the process runs; may be nil
	stdinEnd func() // told once when the input ends
	exiting  bool   // the process has ended
	finished bool   // no more output will come
}

// Ends are a supervisor's ends of a process's streams, nil where it has none.
type Ends struct{ Stdin, Stdout, Stderr, Console *os.File }

// Open makes the pipes and opens the targets of r's streams.
func (hs *Hubs) Open(r Request) (*IO, error) { return hs.open(r, (*IO).pipes) }

// Adopt goes on with the streams of a process that another supervisor had made by r: their ends must be in the poller
// and become the IO's. Run begins to move data.
func (hs *Hubs) Adopt(r Request, ends Ends) (*IO, error) {
	return hs.open(r, func(o *IO) error {
		o.adopt(ends)
		return nil
	})
}

func (hs *Hubs) open(r Request, streams func(o *IO) error) (_ *IO, err error) {
	o := &IO{req: r, hubs: hs, clients: make(map[*client]struct{})}
	defer func() {
		if err != nil {
			o.Close()
		}
	}()
	if err := o.parse(); err != nil {
		return nil, err
	}
	if err := streams(o); err != nil {
		return nil, err
	}
	if err := o.targets(); err != nil {
		return nil, err
	}
	if o.uri.Attach != "" {
		o.hub, err = hs.join(o.uri.Attach, procKey{r.Container, r.Exec}, o)
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

// parse finds the one URI of ours among the three targets.
func (o *IO) parse() error {
	for _, s := range []string{o.req.Stdout, o.req.Stderr, o.req.Stdin} {
		if !IsURI(s) {
			continue
		}
		u, err := ParseURI(s)
		if err != nil {
			return err
		}
		o.uri = u
		if u.Log != "" {
			o.limit = patience
		}
		return nil
	}
	return nil
}

// wantsStdin tells whether the process gets an input other than /dev/null.
func (o *IO) wantsStdin() bool {
	return o.uri.Stdin || (o.req.Stdin != "" && !IsURI(o.req.Stdin))
}

// pipes makes the streams of a process that has no terminal; one that has gets it later, by Console.
func (o *IO) pipes() error {
	if o.req.Terminal {
		o.outputs = append(o.outputs, newOutput(logfile.Stdout))
		return nil
	}
	if o.wantsStdin() {
		r, w, err := pipe()
		if err != nil {
			return err
		}
		o.child[0] = r
		if o.stdin, err = pollable(w); err != nil {
			return err
		}
	}
	for i, target := range []string{o.req.Stdout, o.req.Stderr} {
		if target == "" {
			continue
		}
		r, w, err := pipe()
		if err != nil {
			return err
		}
		out := newOutput(logfile.Stream(i + 1))
		o.outputs = append(o.outputs, out)
		o.child[i+1] = w
		if out.src, err = pollable(r); err != nil {
			return err
		}
	}
	return nil
}

// adopt takes over streams that are there already.
func (o *IO) adopt(e Ends) {
	o.stdin = e.Stdin
	if e.Console != nil {
		o.console = e.Console
		if o.wantsStdin() {
			o.stdin = e.Console
		}
		out := newOutput(logfile.Stdout)
		out.src = e.Console
		o.outputs = append(o.outputs, out)
	}
	for i, src := range []*os.File{e.Stdout, e.Stderr} {
		if src != nil {
			out := newOutput(logfile.Stream(i + 1))
			out.src = src
			o.outputs = append(o.outputs, out)
		}
	}
}

// Hold calls hold with the process's streams, of which none is closed meanwhile. From then on closing is called when
// the input is closed while the process runs.
func (o *IO) Hold(closing func(), hold func(Ends)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closing = closing
	e := Ends{Console: o.console}
	if o.stdin != o.console {
		e.Stdin = o.stdin
	}
	for _, out := range o.outputs {
		switch {
		case o.console != nil:
		case out.stream == logfile.Stdout:
			e.Stdout = out.src
		default:
			e.Stderr = out.src
		}
	}
	hold(e)
}

// targets opens the log and the fifos or files.
func (o *IO) targets() error {
	if o.uri.Log != "" {
		lo := logfile.Options{
			Path: o.uri.Log, Format: logfile.Format(o.uri.Driver),
			MaxSize: o.uri.MaxSize, MaxFiles: o.uri.MaxFile, Attrs: o.uri.Attrs,
		}
		if o.uri.Journal != "" {
			lo.Journal = &logfile.Journal{Socket: o.uri.Journal, Fields: o.uri.Fields}
		}
		w, err := logfile.Open(lo)
		if err != nil {
			return err
		}
		o.log = w
	}
	for _, out := range o.outputs {
		target := o.req.Stdout
		if out.stream == logfile.Stderr {
			target = o.req.Stderr
		}
		if target == "" || IsURI(target) {
			continue
		}
		f, err := openTarget(target)
		if err != nil {
			return err
		}
		out.target = f
	}
	if s := o.req.Stdin; s != "" && !IsURI(s) {
		in, err := openInput(s)
		if err != nil {
			return err
		}
		o.fifo = in
	}
	return nil
}

// Child returns the process's ends of its streams, nil for /dev/null. They are
// closed by Run.
func (o *IO) Child() (stdin, stdout, stderr *os.File) {
	return o.child[0], o.child[1], o.child[2]
}

// Run begins to move data. Call it once the process has its ends.
func (o *IO) Run() { o.runAfter(0) }

// adoptGrace is how long clients of a supervisor that died have to come back before output moves on.
const adoptGrace = 300 * time.Millisecond

// RunAdopted is Run for an adopted process: who was attached to it finds its way here meanwhile, and misses nothing.
func (o *IO) RunAdopted() { o.runAfter(adoptGrace) }

func (o *IO) runAfter(wait time.Duration) {
	o.closeChild()
	for _, out := range o.outputs {
		if out.src == nil {
			close(out.done)
			continue
		}
		go out.relay(o, wait)
	}
	if o.fifo != nil {
		go o.fifo.relay(o)
	}
}

// CloseStdin ends the process's input: what was sent before still arrives. A
// terminal has no end of input that could be told.
func (o *IO) CloseStdin() {
	if o.fifo != nil {
		o.fifo.finish()
		return
	}
	o.closeStdin()
}

func (o *IO) closeStdin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stdin != nil && o.stdin != o.console {
		o.stdin.Close()
		o.stdin = nil
		if o.closing != nil && !o.exiting {
			o.closing()
		}
		if o.stdinEnd != nil {
			go o.stdinEnd()
			o.stdinEnd = nil
		}
	}
}

// StdinEnded has told called, by another goroutine, when the process's input ends: for a process whose stdin is not
// only held by who writes to it. An input that has ended is told at once.
func (o *IO) StdinEnded(told func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.wantsStdin() && o.stdin == nil {
		go told()
		return
	}
	o.stdinEnd = told
}

// AwaitOutput waits until nobody holds the writing ends of the process's output any more, at most so long.
func (o *IO) AwaitOutput(most time.Duration) {
	deadline := time.Now().Add(most)
	for _, out := range o.outputs {
		out.wait(time.Until(deadline))
	}
}

// ReopenLog opens the log's path anew, after a rotation by someone else.
func (o *IO) ReopenLog() error {
	if o.log == nil {
		return errors.New("the container has no log file")
	}
	return o.log.Reopen()
}

// fifoGrace is how long Exited waits for the readers of fifos, and Close after it.
const (
	fifoGrace  = 100 * time.Millisecond
	closeGrace = 5 * time.Second
)

// Exited tells that the process has ended. It returns when all that it had
// written is in the log and on its way to the clients; children of it that live
// on and hold its streams are not waited for, nor are readers of fifos.
func (o *IO) Exited() {
	o.mu.Lock()
	o.exiting = true
	for c := range o.clients {
		c.hurry()
	}
	terminal := o.console != nil
	o.mu.Unlock()
	for _, out := range o.outputs {
		out.stop(terminal)
	}
	for _, out := range o.outputs {
		if out.target == nil {
			<-out.done
		} else {
			out.wait(fifoGrace)
		}
	}
	now := time.Now()
	if o.log != nil {
		o.log.End(logfile.Stdout, now)
		o.log.End(logfile.Stderr, now)
	}
	o.closeStdin()
	if o.fifo != nil {
		o.fifo.close()
	}
	o.mu.Lock()
	o.finished = true
	clients := o.clients
	o.clients = make(map[*client]struct{})
	o.mu.Unlock()
	for c := range clients {
		c.end()
	}
}

// Close frees all. After Run, call Exited first.
func (o *IO) Close() {
	o.closeChild()
	if o.hub != nil {
		o.hubs.leave(o.hub, procKey{o.req.Container, o.req.Exec})
		o.hub = nil
	}
	o.mu.Lock()
	o.finished = true
	clients := o.clients
	o.clients = nil
	if o.stdin != nil && o.stdin != o.console {
		o.stdin.Close()
	}
	o.stdin = nil
	o.console = nil // its output closes it
	o.mu.Unlock()
	for c := range clients {
		c.end()
	}
	for _, out := range o.outputs {
		if out.ending.Load() {
			out.wait(closeGrace)
		}
		out.close()
	}
	if o.fifo != nil {
		o.fifo.close()
	}
	if o.log != nil {
		o.log.Close()
	}
}

func (o *IO) closeChild() {
	for i, f := range o.child {
		if f != nil {
			f.Close()
			o.child[i] = nil
		}
	}
}

// attach registers a client; false when the process's output has ended.
func (o *IO) attach(c *client) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.finished {
		return false
	}
	o.clients[c] = struct{}{}
	if o.exiting {
		c.hurry()
	}
	return true
}

func (o *IO) detach(c *client) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.clients, c)
}

// broadcast hands output to the attached clients.
func (o *IO) broadcast(stream byte, p []byte) {
	o.mu.Lock()
	var few [4]*client
	clients := few[:0]
	for c := range o.clients {
		if c.wants(stream) {
			clients = append(clients, c)
		}
	}
	o.mu.Unlock()
	for _, c := range clients {
		c.put(stream, p, o.limit)
	}
}

// input passes a client's input on until it ends.
func (o *IO) input(c *client) {
	half := copyInput(c, func(p []byte) bool {
		if !c.hello.Stdin {
			return true
		}
		o.mu.Lock()
		f := o.stdin
		o.mu.Unlock()
		if f == nil {
			return true // nobody reads: it is thrown away
		}
		if _, err := f.Write(p); err != nil {
			o.closeStdin()
		}
		return true
	})
	if c.hello.Stdin && o.uri.StdinOnce && !o.req.Terminal {
		o.CloseStdin()
	}
	if half {
		waitHangup(c.conn)
	}
	c.drop()
}
