// Package logfile writes and reads the logs of containers: Docker's json-file
// format and the kubelet's CRI format, with rotation, tail and follow.
package logfile

import (
	"strconv"
	"time"
)

// Format is the line format of a log file.
type Format string

// The formats.
const (
	// JSON is Docker's json-file: {"log":"…\n","stream":"stdout","time":"…"}.
	JSON Format = "json-file"
	// CRI is the kubelet's: RFC3339Nano stream P|F text.
	CRI Format = "cri"
)

// Stream names an output of a process.
type Stream byte

// The streams, with the numbers of Docker's multiplexed format.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// String returns stdout or stderr.
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Entry is one line of a log, or one piece of a very long line.
type Entry struct {
	Time   time.Time
	Stream Stream
	// Line is the text with its newline if it had one; valid during the call.
	Line []byte
	// Continued tells that the line began in an earlier entry of this stream, so
	// no time stamp or prefix belongs before it.
	Continued bool
	// Attrs are Docker's "details".
	Attrs map[string]string
}

// ReadOptions select what Read delivers.
type ReadOptions struct {
	Path   string
	Format Format // "" is JSON
	// Stdout and Stderr choose the streams.
	Stdout, Stderr bool
	// Tail is how many of the last lines to begin with; negative for all.
	Tail int
	// Since and Until bound the entries' times, both inclusive; zero for no bound.
	Since, Until time.Time
	// Follow waits for more until Stopped is closed and the file is read to its
	// end, the context is done, or Until has passed.
	Follow  bool
	Stopped <-chan struct{}
}

func (f Format) maxLine() int {
	if f == CRI {
		return MaxCRILine
	}
	return MaxLine
}

const (
	// MaxLine is the longest line, in bytes, that is written as one entry; a
	// longer one becomes several. It bounds what a writer holds per stream.
	MaxLine = 1 << 20
	// MaxCRILine is the same in the CRI's format: readers of its files expect no longer ones, and put pieces together.
	MaxCRILine = 16 << 10
	// maxRecord bounds one encoded entry for readers: every byte of a line may
	// become a six byte escape, and there are attributes.
	maxRecord = 8 << 20
	// maxRotated bounds how many rotated files are looked for.
	maxRotated = 1000
)

// rotated returns the name of the n-th rotated file, 1 being the newest.
func rotated(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}
