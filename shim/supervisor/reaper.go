package supervisor

import (
	"os"
	"os/signal"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reaper waits for children. Those it watches are told to their owners. Orphans
// of containers, which come to us as the subreaper, are only reaped, and only
// where they can come at all: a container with its own pid namespace has its
// init for that. While a runtime operation is under way unknown children are
// left alone: they may be helpers that the operation waits for itself.
type reaper struct {
	mu    sync.Mutex
	known map[int]func(status uint32)
	busy  int

	orphans sync.Once
	sweeps  bool
}

func newReaper() (*reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl(PR_SET_CHILD_SUBREAPER)", err)
	}
	return &reaper{known: make(map[int]func(uint32))}, nil
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
func (r *reaper) watch(pid int, exited func(status uint32)) {
	r.mu.Lock()
	r.known[pid] = exited
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
	exited, ok := r.known[pid]
	if !ok {
		return true // a sweep was faster
	}
	got, status, err := waitid(unix.P_PID, pid, 0)
	if err == unix.ECHILD {
		// Not our child: somebody else reaped it.
		got, status = pid, unknownExit
	}
	if got != pid {
		return false
	}
	delete(r.known, pid)
	go exited(status)
	return true
}

// signal sends sig to a watched child that has not been reaped; false when it
// has, so that the pid may be another's by now.
func (r *reaper) signal(pid int, sig unix.Signal) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.known[pid]; !ok {
		return false, nil
	}
	return true, unix.Kill(pid, sig)
}

// sweep reaps all that has ended, known or not.
func (r *reaper) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.sweeps {
		return
	}
	// The known ones first: they need not wait for an operation to end.
	for pid, exited := range r.known {
		if got, status, _ := waitid(unix.P_PID, pid, 0); got == pid {
			delete(r.known, pid)
			go exited(status)
		}
	}
	for r.busy == 0 {
		pid, _, err := waitid(unix.P_ALL, 0, unix.WNOWAIT)
		if err != nil || pid == 0 {
			return
		}
		_, status, _ := waitid(unix.P_PID, pid, 0)
		if exited := r.known[pid]; exited != nil {
			delete(r.known, pid)
			go exited(status)
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
func waitid(idType, id, flags int) (pid int, status uint32, err error) {
	var info childInfo
	for {
		err = unix.Waitid(idType, id, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|flags, nil)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil || info.pid == 0 {
		return 0, 0, err
	}
	status = uint32(info.status)
	if info.code == cldKilled || info.code == cldDumped {
		status += 128
	}
	return int(info.pid), status, nil
}
