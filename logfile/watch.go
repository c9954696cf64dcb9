package logfile

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is how often a log is looked at where inotify can't be had (its
// instances are few: fs.inotify.max_user_instances).
const pollInterval = 100 * time.Millisecond

// watcher tells that the directory of a log changed.
type watcher struct {
	inotify *os.File
	events  chan struct{}
	done    chan struct{}
}

func newWatcher(path string) *watcher {
	w := new(watcher)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return w
	}
	// The directory's watch reports writes to the file as well as its rotation.
	mask := uint32(unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE)
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), mask); err != nil {
		unix.Close(fd)
		return w
	}
	w.inotify = os.NewFile(uintptr(fd), "inotify")
	w.events = make(chan struct{}, 1)
	w.done = make(chan struct{})
	go w.read()
	return w
}

func (w *watcher) read() {
	defer close(w.done)
	buf := make([]byte, 4<<10)
	for {
		// What changed does not matter: the reader looks for itself.
		if _, err := w.inotify.Read(buf); err != nil {
			return
		}
		select {
		case w.events <- struct{}{}:
		default:
		}
	}
}

// wake returns a channel that delivers when it is worth looking again.
func (w *watcher) wake() <-chan struct{} {
	if w.inotify != nil {
		return w.events
	}
	c := make(chan struct{})
	time.AfterFunc(pollInterval, func() { close(c) })
	return c
}

func (w *watcher) close() {
	if w.inotify != nil {
		w.inotify.Close()
		<-w.done
	}
}
