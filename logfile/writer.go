package logfile

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"time"
	"unicode/utf8"
)

// Options say how a log is written.
type Options struct {
	Path   string
	Format Format // "" is JSON
	// MaxSize rotates the file before it would grow beyond so many bytes; 0 never.
	MaxSize int64
	// MaxFiles is how many files are kept, the current one included; less than 1
	// is 1: the old file is then dropped at rotation.
	MaxFiles int
	// Attrs are written with every entry of a JSON log.
	Attrs map[string]string
	// Journal gets every entry too; may be nil.
	Journal *Journal
}

// Writer appends the output of one container to its log. It is safe for
// concurrent use: one goroutine for each stream.
type Writer struct {
	path     string
	format   Format
	maxSize  int64
	maxFiles int
	attrs    string
	journal  *journal // nil without one

	mu      sync.Mutex
	file    *os.File
	size    int64
	pending [2][]byte // the line begun on each stream
	buf     []byte    // scratch for encoding, kept small
}

// ErrUnknownFormat refuses a format this package does not write.
var ErrUnknownFormat = errors.New("unknown log format")

// Open opens or creates the log for appending.
func Open(o Options) (*Writer, error) {
	w := &Writer{
		path: o.Path, format: o.Format, maxSize: o.MaxSize,
		maxFiles: max(o.MaxFiles, 1), attrs: encodeAttrs(o.Attrs),
	}
	switch o.Format {
	case "":
		w.format = JSON
	case JSON, CRI:
	default:
		return nil, ErrUnknownFormat
	}
	if o.Journal != nil {
		var err error
		if w.journal, err = openJournal(o.Journal); err != nil {
			return nil, err
		}
	}
	return w, w.open()
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	w.file, w.size = f, fi.Size()
	// A writer that was killed may have left half an entry: end it, so that the
	// next one is not lost too.
	var last [1]byte
	if fi.Mode().IsRegular() && w.size > 0 {
		if _, err := f.ReadAt(last[:], w.size-1); err == nil && last[0] != '\n' {
			n, _ := f.Write([]byte{'\n'})
			w.size += int64(n)
		}
	}
	return nil
}

// Write logs what came on stream s at the time at. What follows the last
// newline is kept until its line is complete. Text that can't be written (a
// full disk) is lost, and the error says so: the container must not stand still
// for its log.
func (w *Writer) Write(s Stream, p []byte, at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	most := w.format.maxLine()
	pend := &w.pending[index(s)]
	var err error
	buf := w.buf[:0]
	for len(p) > 0 {
		n := bytes.IndexByte(p, '\n') + 1
		if n == 0 && len(*pend)+len(p) < most {
			*pend = append(*pend, p...)
			break
		}
		if n == 0 || len(*pend)+n > most {
			n = min(len(p), most-len(*pend))
		}
		line := p[:n]
		if len(*pend) > 0 {
			*pend = append(*pend, line...)
			line = *pend
		}
		p = p[n:]
		whole := line[len(line)-1] == '\n'
		var rest []byte
		if !whole {
			line, rest = cutRune(line)
		}
		if buf, err = w.entry(buf, s, line, at, err); len(buf) > 64<<10 {
			buf, err = w.flush(buf, err)
		}
		*pend = append((*pend)[:0], rest...)
		if cap(*pend) > 64<<10 && len(rest) == 0 {
			*pend = nil
		}
	}
	buf, err = w.flush(buf, err)
	w.keep(buf)
	return err
}

// cutRune splits an incomplete character off the end of line, so that the pieces
// of a long line stay UTF-8 if the line is.
func cutRune(line []byte) (whole, rest []byte) {
	for i := 1; i < utf8.UTFMax && i < len(line); i++ {
		if c := line[len(line)-i]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(line[len(line)-i:]) {
				return line[:len(line)-i], bytes.Clone(line[len(line)-i:])
			}
			break
		}
	}
	return line, nil
}

// End tells that stream s has ended: what is left of a line is written.
func (w *Writer) End(s Stream, at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := w.pending[index(s)]
	if len(line) == 0 {
		return nil
	}
	w.pending[index(s)] = nil
	buf, err := w.entry(w.buf[:0], s, line, at, nil)
	buf, err = w.flush(buf, err)
	w.keep(buf)
	return err
}

// Reopen opens the path anew, after someone else has moved the file away.
func (w *Writer) Reopen() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.file
	if err := w.open(); err != nil {
		return err
	}
	if old != nil {
		old.Close()
	}
	return nil
}

// Close closes the file. Call End for each stream before.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	if w.journal != nil {
		w.journal.close()
		w.journal = nil
	}
	return err
}

func index(s Stream) int {
	if s == Stderr {
		return 1
	}
	return 0
}

// keep holds on to a scratch buffer of modest size.
func (w *Writer) keep(buf []byte) {
	if cap(buf) <= 16<<10 {
		w.buf = buf[:0]
	} else {
		w.buf = nil
	}
}

// entry appends an encoded entry to buf; before one that would not fit into the
// file any more it flushes and rotates.
func (w *Writer) entry(buf []byte, s Stream, line []byte, at time.Time, err error) ([]byte, error) {
	if w.journal != nil {
		_ = w.journal.send(s, line, at) // what it doesn't take is in the file
	}
	before := len(buf)
	if w.format == CRI {
		buf = appendCRI(buf, s, line, at)
	} else {
		buf = appendJSON(buf, s, line, w.attrs, at)
	}
	if w.maxSize <= 0 || w.size+int64(len(buf)) <= w.maxSize || w.size+int64(before) == 0 {
		return buf, err
	}
	entry := buf[before:]
	_, err = w.flush(buf[:before], err)
	if rerr := w.rotate(); rerr != nil && err == nil {
		err = rerr
	}
	// The flushed part is done with: the entry moves to the front.
	return append(buf[:0], entry...), err
}

func (w *Writer) flush(buf []byte, err error) ([]byte, error) {
	if len(buf) == 0 {
		return buf, err
	}
	if w.file == nil {
		return buf[:0], os.ErrClosed
	}
	n, werr := w.file.Write(buf)
	w.size += int64(n)
	if werr != nil {
		if n > 0 {
			// Half an entry is on disk: end it when there is room again.
			w.file.Write([]byte{'\n'})
		}
		if err == nil {
			err = werr
		}
	}
	return buf[:0], err
}

// rotate moves path to path.1, path.1 to path.2 and so on, keeping maxFiles.
func (w *Writer) rotate() error {
	for n := w.maxFiles - 1; n > 0; n-- {
		err := os.Rename(rotated(w.path, n-1), rotated(w.path, n))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if w.maxFiles == 1 {
		// Readers that follow notice a new inode, not a truncation.
		if err := os.Remove(w.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	old := w.file
	if err := w.open(); err != nil {
		w.file = old
		return err
	}
	if old != nil {
		old.Close()
	}
	return nil
}
