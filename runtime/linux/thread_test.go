package linux

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func init() { runtime.LockOSThread() } // TestMain runs on the first thread

func TestMain(m *testing.M) {
	onFirst = unix.Gettid() == os.Getpid()
	runtime.UnlockOSThread()
	os.Exit(m.Run())
}

var onFirst bool

// Whatever thread a goroutine happens to be on, the process's first one is left as it is, and the others end.
func TestInThread(t *testing.T) {
	if !onFirst {
		t.Fatal("the test does not start on the first thread")
	}
	for range 200 {
		var tid int
		InThread(func() { tid = unix.Gettid() })
		if tid == os.Getpid() {
			t.Fatal("ran on the process's first thread")
		}
	}
	// Held by force, as the scheduler does it by chance.
	done := make(chan struct{})
	go inThread(func() {
		if unix.Gettid() == os.Getpid() {
			t.Error("ran on the process's first thread")
		}
	}, done)
	<-done
}
