package supervisor

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cale/runtime/linux"
)

// reaper waits for children. Those it watches are told to their owners. Orphans
// of containers, which come to us as the subreaper, are only reaped, and only
// where they can come at all: a container with its own pid namespace has its
// init for that. While a runtime operation is under way unknown children are
// left alone: they may be helpers that the operation waits for itself.
type reaper struct {
	mu    sync.Mutex
	known map[int]*watched
	busy  int

	orphans sync.Once
	sweeps  bool
}

// watched is a process whose end somebody wants to know.
type watched struct {
	exited func(end)
	// adopted is the pidfd of one that is not a child: another supervisor had made it. nil for a child.
	adopted *os.File
}

// end is how a process ended: its exit code, or 128+signal. It is unknown if the kernel told nobody who is left.
type end struct {
	status  uint32
	unknown bool
}

func newReaper() (*reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl(PR_SET_CHILD_SUBREAPER)", err)
	}
	return &reaper{known: make(map[int]*watched)}, nil
}

// expectOrphans begins to reap unknown children. It is not done from the start
// because signals cost a thread.
func (r *reaper) expectOrphans() {
	r.orphans.Do(func() {
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGCHLD)
		go func() {
			for range c {
				r.sweep()
			}
		}()
		r.mu.Lock()
		r.sweeps = true
		r.mu.Unlock()
		r.sweep()
	})
}

// begin and end enclose an operation that makes children.
func (r *reaper) begin() {
	r.mu.Lock()
	r.busy++
	r.mu.Unlock()
}

func (r *reaper) end() {
	r.mu.Lock()
	r.busy--
	r.mu.Unlock()
	r.sweep()
}

// watch has exited called, on a goroutine of its own, when the child pid ends.
// Call it between begin and end.
func (r *reaper) watch(pid int, exited func(end)) {
	r.mu.Lock()
	r.known[pid] = &watched{exited: exited}
	r.mu.Unlock()
	// The child is not reaped yet, so the pid is surely its.
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		r.expectOrphans() // sweeps see the known ones as well
		return
	}
	// In the poller a pidfd costs no thread while it waits.
	f := os.NewFile(uintptr(fd), "pidfd")
	go func() {
		defer f.Close()
		rc, err := f.SyscallConn()
		if err == nil {
			err = rc.Read(func(uintptr) bool { return r.reap(pid) })
		}
		if err != nil {
			r.expectOrphans()
		}
	}()
}

// reap reaps the watched child pid if it has ended; true when there is nothing
// more to wait for.
func (r *reaper) reap(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.known[pid]
	if !ok {
		return true // a sweep was faster
	}
	got, how, err := waitid(unix.P_PID, pid, 0)
	if err == unix.ECHILD {
		// Not our child: somebody else reaped it.
		got, how = pid, end{unknownExit, true}
	}
	if got != pid {
		return false
	}
	delete(r.known, pid)
	go w.exited(how)
	return true
}

// adopt is watch for a process that is not a child. Its pidfd must be in the poller; it becomes the reaper's.
func (r *reaper) adopt(pid int, pidfd *os.File, exited func(end)) {
	w := &watched{exited: exited, adopted: pidfd}
	r.mu.Lock()
	r.known[pid] = w
	r.mu.Unlock()
	go func() {
		how := awaitAdopted(pid, pidfd)
		r.mu.Lock()
		if r.known[pid] == w { // else the pid is a child's by now
			delete(r.known, pid)
		}
		pidfd.Close()
		r.mu.Unlock()
		exited(how)
	}()
}

// settleTime is how long the kernel may take to tell how a process ended that has: until its parent has asked.
const settleTime = 10 * time.Second

// awaitAdopted waits for the end of a process by its pidfd alone.
func awaitAdopted(pid int, pidfd *os.File) end {
	how := end{unknownExit, true}
	rc, err := pidfd.SyscallConn()
	if err != nil {
		return how
	}
	var late time.Time
	rerr := rc.Read(func(fd uintptr) bool {
		for {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(poll, 0); err == unix.EINTR || err == nil && n == 0 {
				return false
			}
			ws, known, settled := linux.ExitStatus(int(fd), pid)
			if known {
				how = end{status: statusOf(ws)}
			}
			if late.IsZero() {
				late = time.Now().Add(settleTime)
			}
			if settled || time.Now().After(late) {
				return true
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	if rerr != nil {
		return end{unknownExit, true}
	}
	return how
}

func statusOf(ws unix.WaitStatus) uint32 {
	if ws.Signaled() {
		return 128 + uint32(ws.Signal())
	}
	return uint32(ws.ExitStatus())
}

// signal sends sig to a watched process that has not been reaped; false when it
// has, so that the pid may be another's by now.
func (r *reaper) signal(pid int, sig unix.Signal) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.known[pid]
	if !ok {
		return false, nil
	}
	if w.adopted == nil {
		return true, unix.Kill(pid, sig)
	}
	rc, err := w.adopted.SyscallConn()
	if err != nil {
		return true, err
	}
	cerr := rc.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if err == unix.ESRCH {
		return false, nil
	}
	return true, errors.Join(cerr, err)
}

// sweep reaps all that has ended, known or not.
func (r *reaper) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.sweeps {
		return
	}
	// The known ones first: they need not wait for an operation to end.
	for pid, w := range r.known {
		if w.adopted != nil {
			continue
		}
		if got, how, _ := waitid(unix.P_PID, pid, 0); got == pid {
			delete(r.known, pid)
			go w.exited(how)
		}
	}
	for r.busy == 0 {
		pid, _, err := waitid(unix.P_ALL, 0, unix.WNOWAIT)
		if err != nil || pid == 0 {
			return
		}
		_, how, _ := waitid(unix.P_PID, pid, 0)
		if w := r.known[pid]; w != nil {
			delete(r.known, pid)
			go w.exited(how)
		}
	}
}

// unknownExit is the status of a process whose end was not seen.
const unknownExit = 255

// childInfo is the kernel's siginfo_t as waitid fills it in on 64-bit systems.
type childInfo struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	uid                uint32
	status             int32
	_                  [100]byte
}

// The si_code values of ended children.
const (
	cldKilled = 2
	cldDumped = 3
)

// waitid reaps an ended child without waiting; pid 0 when there is none.
func waitid(idType, id, flags int) (pid int, how end, err error) {
	var info childInfo
	for {
		err = unix.Waitid(idType, id, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|flags, nil)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil || info.pid == 0 {
		return 0, end{}, err
	}
	how.status = uint32(info.status)
	if info.code == cldKilled || info.code == cldDumped {
		how.status += 128
	}
	return int(info.pid), how, nil
}
