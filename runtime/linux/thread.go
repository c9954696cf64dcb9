package linux

import (
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
