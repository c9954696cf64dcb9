package supervisor

import (
	"sync"

	"cale/shim/stdio"
	"cale/shim/task"
)

// process is a container's init or an exec.
type process struct {
	execID string
	req    stdio.Request
	spec   []byte // an exec's OCI process; dropped once it is started
	io     *stdio.IO

	mu      sync.Mutex
	state   task.Status
	started bool
	pid     int
	exit    Exit
	// cancel ends a start that is under way and may take long: a restore; nil without one. killed is the signal that
	// came meanwhile, or 0.
	cancel func()
	killed int
	done   chan struct{} // closed when state is stopped
}

func newProcess(req stdio.Request, io *stdio.IO) *process {
	return &process{execID: req.Exec, req: req, io: io, state: task.StatusCreated, done: make(chan struct{})}
}

// stopped records the end; the first one counts.
func (p *process) stopped(e Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stoppedLocked(e)
}

func (p *process) stoppedLocked(e Exit) {
	if p.state == task.StatusStopped {
		return
	}
	p.state, p.exit = task.StatusStopped, e
	close(p.done)
}

func (p *process) status() (task.Status, int, Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.pid, p.exit
}

// ended tells whether the process has stopped.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) streams() Streams {
	if p.req.Terminal {
		w, h := p.io.Size()
		return Streams{Console: p.io.Console, Width: w, Height: h}
	}
	in, out, err := p.io.Child()
	return Streams{Stdin: in, Stdout: out, Stderr: err}
}
