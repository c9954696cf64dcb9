package stdio

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// openTarget opens a fifo (containerd's way) or the file of a file:// URI for
// output.
func openTarget(target string) (*os.File, error) {
	if strings.HasPrefix(target, "file://") {
		u, err := url.Parse(target)
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(filepath.Dir(u.Path), 0o755); err != nil {
			return nil, err
		}
		return os.OpenFile(u.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	}
	path, err := fifoPath(target)
	if err != nil {
		return nil, err
	}
	// Open for reading too, so that a client that comes and goes does not end the
	// process by SIGPIPE or lose what is in the fifo.
	return openFifo(path, os.O_RDWR)
}

func fifoPath(target string) (string, error) {
	path := strings.TrimPrefix(target, "fifo://")
	if !strings.HasPrefix(path, "/") {
		scheme, _, _ := strings.Cut(target, ":")
		return "", errors.New("stdio: unsupported target " + scheme + ": want a fifo's path, file:// or cale://")
	}
	return path, nil
}

func openFifo(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// fifoInput is a stdin fifo that a client of containerd writes to.
type fifoInput struct {
	r *os.File
	// w is our own writing end: the input lasts while clients come and go, until
	// finish closes it.
	mu sync.Mutex
	w  *os.File
}

func openInput(target string) (*fifoInput, error) {
	path, err := fifoPath(target)
	if err != nil {
		return nil, err
	}
	r, err := openFifo(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	w, err := openFifo(path, os.O_WRONLY)
	if err != nil {
		r.Close()
		return nil, err
	}
	return &fifoInput{r: r, w: w}, nil
}

// finish lets the input end once all writers have closed and all is read.
func (in *fifoInput) finish() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.w != nil {
		in.w.Close()
		in.w = nil
	}
}

func (in *fifoInput) close() {
	in.finish()
	in.r.Close()
}

// relay passes the fifo's data on until its end, then closes the process's stdin.
func (in *fifoInput) relay(o *IO) {
	defer o.closeStdin()
	rc, err := in.r.SyscallConn()
	if err != nil {
		return
	}
	for {
		var buf *[bufferSize]byte
		var n int
		var rerr error
		err := rc.Read(func(fd uintptr) bool {
			buf = buffers.Get().(*[bufferSize]byte)
			n, rerr = readFD(int(fd), buf[:])
			if rerr == unix.EAGAIN {
				buffers.Put(buf)
				buf = nil
				return false
			}
			return true
		})
		if err != nil {
			return
		}
		if rerr != nil || n <= 0 {
			buffers.Put(buf)
			return
		}
		o.mu.Lock()
		f := o.stdin
		o.mu.Unlock()
		if f != nil {
			_, rerr = f.Write(buf[:n])
		}
		buffers.Put(buf)
		if f == nil || rerr != nil {
			return
		}
	}
}
