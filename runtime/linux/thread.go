package linux

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// InThread runs f in a thread that ends with it, for changes that a thread can't take back, such as another mount
// namespace. What f starts as goroutines runs elsewhere. It returns after f has.
func InThread(f func()) {
	done := make(chan struct{})
	go inThread(f, done)
	<-done
}

func inThread(f func(), done chan struct{}) {
	defer close(done)
	runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
	if unix.Gettid() != os.Getpid() {
		f()
		return
	}
	// The process's first thread does not end before the process: it would go on in what f has made of it, and the
	// process would be seen there. While it is held here, another goroutine gets another thread.
	again := make(chan struct{})
	go inThread(f, again)
	<-again
	runtime.UnlockOSThread()
}

// InNamespace calls do with the thread in another network, UTS or pid namespace, by its CLONE_NEW... flag (of the last
// its children alone are in), and back in its own afterwards.
func InNamespace(ns *os.File, flag int, do func() error) error {
	kind := map[int]string{unix.CLONE_NEWNET: "net", unix.CLONE_NEWPID: "pid", unix.CLONE_NEWUTS: "uts"}[flag]
	runtime.LockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own %s namespace: %w", kind, err)
	}
	defer unix.Close(own)
	if err := unix.Setns(int(ns.Fd()), flag); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("join %s namespace: %w", kind, err)
	}
	defer func() {
		// A thread that can't come back stays locked, and so ends with its goroutine.
		if unix.Setns(own, flag) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return do()
}

// Identity is a user and group of the caller's user namespace.
type Identity struct{ UID, GID int }

// Take makes the calling thread, which should end soon (InThread), act on files as another user, with the capabilities
// that it has.
func (id Identity) Take() error {
	if err := unix.Setfsgid(id.GID); err != nil {
		return fmt.Errorf("setfsgid: %w", err)
	}
	if err := unix.Setfsuid(id.UID); err != nil {
		return fmt.Errorf("setfsuid: %w", err)
	}
	// Without root's identity the thread has lost the capabilities that go with files.
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	for i := range sets {
		sets[i].Effective = sets[i].Permitted
	}
	if err := unix.Capset(&head, &sets[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
