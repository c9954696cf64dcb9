package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read from one control file; the longest real ones are lists of pids.
const maxFile = 16 << 20

// write sets one control file. Plain system calls: an os.File would be registered with the poller for nothing.
func (c *Cgroup) write(dir, name, value string) error {
	fd, err := c.openWrite(dir, name)
	if err != nil {
		return &os.PathError{Op: fmt.Sprintf("write %q to", value), Path: dir + "/" + name, Err: err}
	}
	defer unix.Close(fd)
	return writeFD(fd, dir, name, value)
}

// openWrite opens a control file. Only in a test's directory tree may it create one.
func (c *Cgroup) openWrite(dir, name string) (int, error) {
	flags := unix.O_WRONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW
	if c.fake {
		flags |= unix.O_CREAT | unix.O_TRUNC
	}
	return openRetry(dir+"/"+name, flags)
}

func writeFD(fd int, dir, name, value string) error {
	for {
		_, err := unix.Write(fd, []byte(value))
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.PathError{Op: fmt.Sprintf("write %q to", value), Path: dir + "/" + name, Err: err}
		}
	}
}

func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0o644)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// read returns a control file's text without the newline at its end.
func read(dir, name string) (string, error) {
	path := dir + "/" + name
	fd, err := openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var small [4096]byte
	buf := small[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return strings.TrimSuffix(string(buf), "\n"), nil
		}
		buf = buf[:len(buf)+n]
		if len(buf) > maxFile {
			return "", &os.PathError{Op: "read", Path: path, Err: unix.EFBIG}
		}
	}
}

// number reads a file that holds one number; "max" and what v1 writes for "no limit" are math.MaxUint64.
func number(dir, name string) (uint64, error) {
	s, err := read(dir, name)
	if err != nil {
		return 0, err
	}
	n, err := parseNumber(s)
	if err != nil {
		return 0, fmt.Errorf("cgroup file %s/%s: %w", dir, name, err)
	}
	return n, nil
}

func parseNumber(s string) (uint64, error) {
	if s == "max" || s == "-1" {
		return math.MaxUint64, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, err
	}
	// v1 rounds its largest value, 2^63-1, down to a page (4 to 64 KiB).
	if n >= math.MaxInt64&^0xffff {
		n = math.MaxUint64
	}
	return n, nil
}

// optional turns a missing file into 0: not every kernel has every counter.
func optional(n uint64, err error) (uint64, error) {
	if isGone(err) {
		return 0, nil
	}
	return n, err
}

// isGone says that a file or its group isn't there, or is being removed just now.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

// keyed calls f for each "name value" line.
func keyed(text string, f func(key string, value uint64)) {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok {
			continue
		}
		if n, err := parseNumber(value); err == nil {
			f(key, n)
		}
	}
}
