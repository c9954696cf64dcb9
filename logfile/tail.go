package logfile

import (
	"bytes"
	"io"
	"os"
)

// seekTail positions the files (newest first) so that the last o.Tail lines
// follow, and returns the index of the first file to read. It reads backwards
// from the end and no more than needed. A long line's pieces count once.
func (r *reader) seekTail(files []*os.File) (int, error) {
	t := tail{reader: r, left: r.o.Tail}
	for i, f := range files {
		pos, done, err := t.scan(f)
		if err != nil {
			return 0, err
		}
		if done {
			_, err := f.Seek(pos, io.SeekStart)
			return i, err
		}
	}
	return len(files) - 1, nil
}

type tail struct {
	*reader
	left int
	seen [2]bool // an entry of the stream came by, further back than which lines end
}

// scan walks f's records backwards. done with pos tells where the tail begins.
func (t *tail) scan(f *os.File) (pos int64, done bool, err error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	var (
		buf   []byte // bytes [off, off+len(buf)) of the file
		off   = fi.Size()
		chunk = int64(16 << 10)
	)
	// A record under way is not counted: a follower sees it when it is whole.
	first := true
	for {
		// Cut records off the end of buf while one is whole in it.
		for {
			body := buf
			if first {
				i := bytes.LastIndexByte(buf, '\n')
				if i < 0 {
					break
				}
				buf, first = buf[:i+1], false
				continue
			}
			if len(body) == 0 {
				break
			}
			i := bytes.LastIndexByte(body[:len(body)-1], '\n')
			if i < 0 && off > 0 {
				break
			}
			rec := body[i+1 : len(body)-1]
			if t.ends(rec) {
				if t.left == 0 {
					return off + int64(len(body)), true, nil
				}
				t.left--
			}
			buf = buf[:i+1]
		}
		if off == 0 {
			return 0, false, nil
		}
		if int64(len(buf)) > maxRecord {
			// Damage: no newline for longer than any record. Start behind it.
			return off + int64(len(buf)), true, nil
		}
		n := min(chunk, off)
		if chunk < 1<<20 {
			chunk *= 2
		}
		bigger := make([]byte, n+int64(len(buf)))
		if _, err := f.ReadAt(bigger[:n], off-n); err != nil {
			return 0, false, err
		}
		copy(bigger[n:], buf)
		buf, off = bigger, off-n
	}
}

// ends tells whether rec is the end of a line, going backwards.
func (t *tail) ends(rec []byte) bool {
	var e Entry
	var ok bool
	if t.scratch, ok = decode(t.o.Format, rec, t.scratch, &e); !ok {
		return false
	}
	i := index(e.Stream)
	last := !t.seen[i]
	t.seen[i] = true
	return last || !t.isPiece(&e)
}
