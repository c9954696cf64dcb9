package keep

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"cale/shim/stdio"
)

// Backlog is how many messages may wait for the keeper.
const Backlog = 4096

// keeper holds the descriptors. It is one thread's: messages are taken in the order they came.
type keeper struct {
	held     map[Key]*held
	watchers []int
	buf      []byte
	spare    int // a descriptor that is given up for a moment when there are no others
}

type held struct {
	pid     uint64
	request []byte
	fds     [slots]int
}

// Listen makes the keeper's socket at path, in place of whatever was there. The descriptor is the caller's.
func Listen(path string) (int, error) {
	return stdio.ListenPackets(path, Backlog)
}

// Serve is the keeper: it holds what it is sent at a listening socket, and ends when it holds nothing and nobody
// watches it.
func Serve(listener int) error {
	k := &keeper{held: map[Key]*held{}, buf: make([]byte, maxPacket), spare: spareFD()}
	defer func() { unix.Close(k.spare) }()
	if err := unix.SetNonblock(listener, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	// The first watcher is whoever started us; it may have died over that.
	patience, watched := 60_000, false
	for {
		polled := make([]unix.PollFd, 1, 1+len(k.watchers))
		polled[0] = unix.PollFd{Fd: int32(listener), Events: unix.POLLIN}
		for _, fd := range k.watchers {
			polled = append(polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		n, err := unix.Poll(polled, patience)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("poll", err)
		}
		for _, p := range polled[1:] {
			if p.Revents != 0 {
				k.unwatch(int(p.Fd))
			}
		}
		for {
			fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			if err == unix.EMFILE || err == unix.ENFILE {
				k.turnAway(listener)
				continue
			}
			if err != nil {
				break // none is left
			}
			k.serve(fd)
		}
		if len(k.watchers) > 0 {
			patience, watched = -1, true
		}
		if len(k.watchers) == 0 && len(k.held) == 0 && (watched || n == 0) {
			return nil
		}
	}
}

func spareFD() int {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// turnAway ends a connection that there is no descriptor for: left waiting, it would keep us awake for as long as it
// waits. Whose it is does without a keeper.
func (k *keeper) turnAway(listener int) {
	if k.spare < 0 {
		time.Sleep(100 * time.Millisecond)
	} else {
		unix.Close(k.spare)
	}
	if fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC); err == nil {
		unix.Close(fd)
	}
	k.spare = spareFD()
}

func (k *keeper) unwatch(fd int) {
	for i, w := range k.watchers {
		if w == fd {
			k.watchers = append(k.watchers[:i], k.watchers[i+1:]...)
			unix.Close(fd)
			return
		}
	}
}

// serve takes one message. Who connects and sends none holds the others up for a moment only: the socket is its
// owner's alone.
func (k *keeper) serve(fd int) {
	limit := unix.Timeval{Sec: 1}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	m := new(message)
	if err := m.receive(fd, k.buf); err != nil {
		unix.Close(fd)
		return
	}
	if m.kind == kindPut {
		k.let(m.key)
		k.held[m.key] = &held{pid: m.pid, request: m.request, fds: m.fds}
		unix.Close(fd)
		return
	}
	closeAll(m.fds[:])
	switch m.kind {
	case kindCloseInput:
		if h := k.held[m.key]; h != nil {
			closeAll(h.fds[:1])
			h.fds[0] = -1
		}
	case kindDrop:
		k.drop(m.key)
	case kindTake:
		k.give(fd, m.key.Supervisor)
	case kindWatch:
		k.watchers = append(k.watchers, fd)
		return
	}
	unix.Close(fd)
}

func (k *keeper) let(key Key) {
	if h := k.held[key]; h != nil {
		closeAll(h.fds[:])
		delete(k.held, key)
	}
}

func (k *keeper) drop(key Key) {
	for other := range k.held {
		if other.Supervisor == key.Supervisor && (key.Container == "" || other.Container == key.Container) &&
			(key.Exec == "" || other.Exec == key.Exec) {
			k.let(other)
		}
	}
}

func (k *keeper) give(fd int, supervisor string) {
	for key, h := range k.held {
		if key.Supervisor != supervisor {
			continue
		}
		m := &message{kind: kindPut, key: key, pid: h.pid, request: h.request, fds: h.fds}
		if m.send(fd) != nil {
			return
		}
	}
	m := &message{kind: kindEnd, fds: [slots]int{-1, -1, -1, -1, -1}}
	_ = m.send(fd) // who is gone asks again
}
