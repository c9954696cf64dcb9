package step

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/util/network"
	"golang.org/x/sys/unix"

	"cale/runtime"
)

// streams connect a process's files with BuildKit's streams.
type streams struct {
	process executor.ProcessInfo
	files   [3]*os.File // the process's ends, closed once it has them
	stdin   *os.File    // our end of its input
	master  *os.File    // of its terminal
	copies  sync.WaitGroup
	mu      sync.Mutex
}

func newStreams(p executor.ProcessInfo) (*streams, error) {
	s := &streams{process: p}
	if p.Meta.Tty {
		return s, nil
	}
	if p.Stdin != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.files[0], s.stdin = r, w
		// It may wait for input that never comes: nobody waits for it.
		go func() {
			_, _ = io.Copy(w, p.Stdin)
			w.Close()
		}()
	}
	for i, to := range []io.Writer{1: p.Stdout, 2: p.Stderr} {
		if to == nil {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			s.started()
			return nil, err
		}
		s.files[i] = w
		s.copies.Go(func() {
			defer r.Close()
			if _, err := io.Copy(to, r); err != nil {
				_, _ = io.Copy(io.Discard, r) // the process is not to block
			}
		})
	}
	return s, nil
}

// console is what takes the terminal, if there is to be one.
func (s *streams) console(tty bool) func(*os.File) {
	if !tty {
		return nil
	}
	return func(master *os.File) {
		s.mu.Lock()
		s.master = master
		s.mu.Unlock()
		if s.process.Stdin != nil {
			go func() { _, _ = io.Copy(master, s.process.Stdin) }()
		}
		if s.process.Stdout != nil {
			s.copies.Go(func() { _, _ = io.Copy(s.process.Stdout, master) })
		}
	}
}

// started closes what the process has by now, or never will.
func (s *streams) started() {
	for i, f := range s.files {
		if f != nil {
			f.Close()
			s.files[i] = nil
		}
	}
}

// resize sets the terminal's size.
func (s *streams) resize(w executor.WinSize) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.master != nil {
		_ = unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(w.Rows), Col: uint16(w.Cols)})
	}
}

// wait waits for the output's end, which comes with the process's.
func (s *streams) wait() {
	s.copies.Wait()
	if s.process.Stdin != nil {
		s.process.Stdin.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.master != nil {
		s.master.Close()
		s.master = nil
	}
}

// wait waits for a child to end, passes signals and sizes on meanwhile, and
// kills it when ctx ends. It returns the exit status as a shell counts it.
func wait(ctx context.Context, pid int, p executor.ProcessInfo, kill func(syscall.Signal) error, s *streams) int {
	ended := make(chan int, 1)
	go func() { ended <- reap(pid) }()
	done := ctx.Done()
	for {
		select {
		case status := <-ended:
			return status
		case <-done:
			_ = kill(unix.SIGKILL)
			done = nil
		case sig, ok := <-p.Signal:
			if !ok {
				p.Signal = nil
				continue
			}
			_ = kill(sig)
		case size, ok := <-p.Resize:
			if !ok {
				p.Resize = nil
				continue
			}
			s.resize(size)
		}
	}
}

func reap(pid int) int {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		switch {
		case err != nil:
			return 255
		case ws.Signaled():
			return 128 + int(ws.Signal())
		}
		return ws.ExitStatus()
	}
}

// Exec implements executor.Executor.
func (r *Runner) Exec(ctx context.Context, id string, process executor.ProcessInfo) error {
	r.mu.Lock()
	run := r.running[id]
	r.mu.Unlock()
	if run == nil {
		return errNoStep(id)
	}
	select {
	case <-run.ready:
	case <-run.ended:
		return errNoStep(id)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if process.Meta.Proxy != nil && len(process.Meta.Env) > 0 {
		process.Meta.Env = executor.ReplaceEnv(process.Meta.Env, network.FilterProxyEnv(run.spec.Process.Env))
	}
	ps, err := run.execProcess(process.Meta)
	if err != nil {
		return err
	}
	std, err := newStreams(process)
	if err != nil {
		return err
	}
	p, err := run.container.Exec(ctx, runtime.ExecOptions{
		Process: ps, Stdin: std.files[0], Stdout: std.files[1], Stderr: std.files[2], Console: std.console(process.Meta.Tty),
	})
	std.started()
	if err != nil {
		std.wait()
		if errors.Is(err, runtime.ErrNotRunning) {
			return errNoStep(id)
		}
		return notStarted(ctx, err, process)
	}
	defer p.PidFD.Close()
	status := wait(ctx, p.Pid, process, func(sig syscall.Signal) error {
		return unix.PidfdSendSignal(int(p.PidFD.Fd()), unix.Signal(sig), nil, 0)
	}, std)
	std.wait()
	return exitError(ctx, status, false, process.Meta.ValidExitCodes)
}
