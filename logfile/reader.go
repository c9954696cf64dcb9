package logfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"
)

// errEnd ends a reading early without an error.
var errEnd = errors.New("end of reading")

// pieceSize is the least length of an entry without newline that is taken for a
// piece of a long line (Docker cuts at 16 KiB). A shorter one is the last output
// of a process that ended without newline: its line is over.
const pieceSize = 16<<10 - 4

// reader is the state of one Read.
type reader struct {
	o       ReadOptions
	fn      func(*Entry) error
	scratch []byte
	open    [2]bool // a line's pieces are under way on the stream
}

// Read calls fn with the entries of the log and its rotated files, oldest first.
// A missing log has no entries. An error of fn ends the reading and is returned.
func Read(ctx context.Context, o ReadOptions, fn func(*Entry) error) error {
	if o.Format == "" {
		o.Format = JSON
	}
	if o.Format != JSON && o.Format != CRI {
		return ErrUnknownFormat
	}
	r := &reader{o: o, fn: fn}
	var w *watcher
	if o.Follow {
		// Watch before the first look, so that no change goes unseen.
		w = newWatcher(o.Path)
		defer w.close()
	}
	err := r.run(ctx, w)
	if errors.Is(err, errEnd) {
		return nil
	}
	return err
}

func (r *reader) run(ctx context.Context, w *watcher) error {
	files, err := openAll(r.o.Path)
	if err != nil {
		return err
	}
	defer func() { closeAll(files) }()
	// The order is newest first; the size at this moment is where a tail counts
	// from.
	start := len(files) - 1
	if r.o.Tail >= 0 {
		start, err = r.seekTail(files)
		if err != nil {
			return err
		}
	}
	for i := start; i > 0; i-- {
		if err := r.drain(ctx, newSource(files[i])); err != nil {
			return err
		}
	}
	var src *source
	if len(files) > 0 {
		src = newSource(files[0])
		if err := r.drain(ctx, src); err != nil {
			return err
		}
	}
	if !r.o.Follow {
		return nil
	}
	return r.follow(ctx, src, w)
}

// rotationTime bounds how long openAll waits for a rotation to be over, which takes a few renames.
const rotationTime = 2 * time.Second

// openAll opens the log and its rotated files, newest first. While the writer rotates, files are missing and others are
// seen under two names: it looks again until nothing has moved over a look.
func openAll(path string) (files []*os.File, err error) {
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		files, err := openNow(path)
		if err != nil || still(path, files) || time.Since(begun) > rotationTime {
			return slices.DeleteFunc(files, func(f *os.File) bool { return f == nil }), err
		}
		closeAll(files)
	}
}

// openNow opens what is there, by number; the log itself is nil if it isn't there.
func openNow(path string) (files []*os.File, err error) {
	for n := 0; n <= maxRotated; n++ {
		f, err := os.Open(rotated(path, n))
		if errors.Is(err, os.ErrNotExist) {
			if n > 0 {
				break
			}
			f = nil
		} else if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// still says whether files are what bears the names, and no other does.
func still(path string, files []*os.File) bool {
	for n, f := range files {
		now, err := os.Stat(rotated(path, n))
		if f == nil {
			// The log may not have been begun; with older ones there it is being rotated.
			if !errors.Is(err, os.ErrNotExist) || len(files) > 1 {
				return false
			}
			continue
		}
		if err != nil {
			return false
		}
		own, err := f.Stat()
		if err != nil || !os.SameFile(own, now) {
			return false
		}
	}
	for n := len(files); n <= min(len(files)+1, maxRotated); n++ { // a file is missing before its next has its name
		if _, err := os.Lstat(rotated(path, n)); err == nil {
			return false
		}
	}
	return true
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

func same(a, b *os.File) bool {
	ia, err := a.Stat()
	if err != nil {
		return false
	}
	ib, err := b.Stat()
	return err == nil && os.SameFile(ia, ib)
}

// drain delivers all complete records that src has now.
func (r *reader) drain(ctx context.Context, src *source) error {
	for n := 0; ; n++ {
		if n%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		rec, err := src.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.deliver(rec); err != nil {
			return err
		}
	}
}

func (r *reader) deliver(rec []byte) error {
	var e Entry
	var ok bool
	if r.scratch, ok = decode(r.o.Format, rec, r.scratch, &e); !ok {
		return nil
	}
	i := index(e.Stream)
	e.Continued = r.open[i]
	r.open[i] = r.isPiece(&e)
	if cap(r.scratch) > 256<<10 {
		r.scratch = nil // e.Line keeps it for this call
	}
	if !r.o.Until.IsZero() && e.Time.After(r.o.Until) {
		return errEnd
	}
	if !r.o.Since.IsZero() && e.Time.Before(r.o.Since) {
		return nil
	}
	if (e.Stream == Stdout && !r.o.Stdout) || (e.Stream == Stderr && !r.o.Stderr) {
		return nil
	}
	return r.fn(&e)
}

// isPiece tells whether e's line goes on in the next entry of its stream.
func (r *reader) isPiece(e *Entry) bool {
	n := len(e.Line)
	if n > 0 && e.Line[n-1] == '\n' {
		return false
	}
	return r.o.Format == CRI || n >= pieceSize
}

// source cuts a file into records, keeping an incomplete one for later.
type source struct {
	f    *os.File
	buf  []byte
	r, w int
	skip bool // inside a record beyond maxRecord
}

func newSource(f *os.File) *source { return &source{f: f} }

// next returns the next record without its newline, valid until the next call.
// io.EOF means that no complete record is there yet.
func (s *source) next() ([]byte, error) {
	scanned := s.r
	for {
		if i := bytes.IndexByte(s.buf[scanned:s.w], '\n'); i >= 0 {
			rec := s.buf[s.r : scanned+i]
			s.r = scanned + i + 1
			if s.skip {
				s.skip = false
				scanned = s.r
				continue
			}
			return rec, nil
		}
		scanned = s.w
		if s.w-s.r > maxRecord {
			s.skip, s.r, s.w, scanned = true, 0, 0, 0
		}
		if s.w == len(s.buf) {
			shift := s.r
			s.grow()
			scanned -= shift
		}
		n, err := s.f.Read(s.buf[s.w:])
		s.w += n
		if n == 0 {
			if err == nil {
				err = io.ErrNoProgress
			}
			return nil, err
		}
	}
}

// grow makes room behind what is buffered.
func (s *source) grow() {
	have := s.buf[s.r:s.w]
	if len(have) <= len(s.buf)/2 && len(s.buf) > 0 {
		copy(s.buf, have)
	} else {
		bigger := make([]byte, max(32<<10, 2*len(s.buf)))
		copy(bigger, have)
		s.buf = bigger
	}
	s.r, s.w = 0, len(have)
}

// follow waits for more until the log's writer has stopped.
func (r *reader) follow(ctx context.Context, src *source, w *watcher) error {
	var until <-chan time.Time
	if !r.o.Until.IsZero() {
		t := time.NewTimer(time.Until(r.o.Until))
		defer t.Stop()
		until = t.C
	}
	var opened []*os.File
	defer func() { closeAll(opened) }()
	stopped, over := r.o.Stopped, false
	for {
		if src != nil {
			if err := r.drain(ctx, src); err != nil {
				return err
			}
		}
		newer, err := newerThan(r.o.Path, src)
		if err != nil {
			return err
		}
		if len(newer) > 0 {
			// The old file gets no more: its last records came before the rename.
			if src != nil {
				if err := r.drain(ctx, src); err != nil {
					closeAll(newer)
					return err
				}
			}
			closeAll(opened)
			opened = newer
			for i := len(newer) - 1; i >= 0; i-- {
				src = newSource(newer[i])
				if err := r.drain(ctx, src); err != nil {
					return err
				}
			}
			continue
		}
		if over {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-until:
			return nil
		case <-stopped:
			// One more look finds all that was written before the stop.
			over = true
		case <-w.wake():
		}
	}
}

// newerThan opens the files that took src's place, newest first; none when src
// is still the current one.
func newerThan(path string, src *source) ([]*os.File, error) {
	if src != nil {
		fi, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		own, err := src.f.Stat()
		if err != nil || os.SameFile(fi, own) {
			return nil, err
		}
	}
	files, err := openAll(path)
	if err != nil || src == nil {
		return files, err
	}
	for i, f := range files {
		if same(f, src.f) {
			closeAll(files[i:])
			return files[:i], nil
		}
	}
	return files, nil
}
