package supervisor

import (
	"os"
	"os/signal"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reaper waits for children. Those it watches are told to their owners; orphans
// of containers, which come to us as the subreaper, are only reaped. While a
// runtime operation is under way unknown children are left alone: they may be
// helpers that the operation waits for itself.
type reaper struct {
	mu    sync.Mutex
	known map[int]func(status uint32)
	busy  int
}

func newReaper() (*reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl(PR_SET_CHILD_SUBREAPER)", err)
	}
	r := &reaper{known: make(map[int]func(uint32))}
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGCHLD)
	go func() {
		for range c {
			r.sweep()
		}
	}()
	return r, nil
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

// sweep reaps what there is to reap.
func (r *reaper) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pid, exited := range r.known {
		got, status, err := waitid(unix.P_PID, pid, 0)
		if got == pid {
			delete(r.known, pid)
			go exited(status)
		} else if err == unix.ECHILD {
			// Not our child any more: somebody else reaped it.
			delete(r.known, pid)
			go exited(unknownExit)
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
	cldExited = 1
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
