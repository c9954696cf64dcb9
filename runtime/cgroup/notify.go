package cgroup

import (
	"encoding/binary"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// notify tells who waits for changes of groups' files. There is one for all of a process: of its kind the kernel gives
// each user 128 as a rule, root too, and containers may be more.
var notify struct {
	mu   sync.Mutex
	file *os.File // nil while nobody waits
	fd   int      // file's
	by   map[int32][]chan struct{}
}

// watchFiles sends on the channel whenever one of the files was changed, or is gone; changes close together are told
// once. The caller calls end when it waits no more.
func watchFiles(paths ...string) (changed <-chan struct{}, end func(), err error) {
	notify.mu.Lock()
	defer notify.mu.Unlock()
	if notify.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, nil, os.NewSyscallError("inotify_init1", err)
		}
		notify.file, notify.fd, notify.by = os.NewFile(uintptr(fd), "inotify"), fd, map[int32][]chan struct{}{}
		go tellChanges(notify.file)
	}
	ch := make(chan struct{}, 1)
	var watches []int32
	for _, path := range paths {
		w, err := unix.InotifyAddWatch(notify.fd, path, unix.IN_MODIFY)
		if err != nil {
			unwatch(ch, watches)
			return nil, nil, &os.PathError{Op: "watch", Path: path, Err: err}
		}
		watches = append(watches, int32(w))
		notify.by[int32(w)] = append(notify.by[int32(w)], ch)
	}
	return ch, sync.OnceFunc(func() {
		notify.mu.Lock()
		defer notify.mu.Unlock()
		unwatch(ch, watches)
	}), nil
}

// unwatch needs notify.mu.
func unwatch(ch chan struct{}, watches []int32) {
	for _, w := range watches {
		rest := slices.DeleteFunc(notify.by[w], func(c chan struct{}) bool { return c == ch })
		if notify.by[w] = rest; len(rest) == 0 {
			delete(notify.by, w)
			_, _ = unix.InotifyRmWatch(notify.fd, uint32(w)) // it went with the file, if that is gone
		}
	}
	if len(notify.by) == 0 {
		notify.file.Close()
		notify.file = nil
	}
}

func tellChanges(f *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		notify.mu.Lock()
		if notify.file != f {
			notify.mu.Unlock()
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			w := int32(binary.NativeEndian.Uint32(b))
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			b = b[min(size, len(b)):]
			for _, ch := range notify.by[w] {
				tell(ch)
			}
			if w == -1 { // some were lost
				for _, list := range notify.by {
					for _, ch := range list {
						tell(ch)
					}
				}
			}
		}
		notify.mu.Unlock()
	}
}
