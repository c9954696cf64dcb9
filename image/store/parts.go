package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"cale/image"
)

const (
	// Block is the unit in which Parts remembers what it has, in bytes.
	Block = 1 << 20
	// MaxParts is the largest blob that Parts takes, in bytes.
	MaxParts = 1 << 40
)

// journalMagic begins the journal that follows the room for the blob's bytes
// in the file of an ingest in parts: 16 bytes of magic, the blob's size, then
// for each block the CRC-32C of its bytes and the complement of it. A file
// that is longer than its blob has a journal or is worth nothing; any other
// is the blob's beginning, as Writer leaves it.
const (
	journalMagic = "cale parts v1 \r\n"
	journalHead  = len(journalMagic) + 8
	journalEntry = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errJournal says that what is there is of no use.
var errJournal = errors.New("no journal")

// Parts takes in one blob of known size and digest whose bytes come in any
// order. The blocks that were complete when it was closed, or its process
// died, are there for the next Parts; a Writer goes on from the last of those
// that have no gap before them. Its methods may be called at the same time,
// but Commit and Close, which come last.
type Parts struct {
	s    *Store
	desc image.Descriptor
	key  string
	f    *os.File
	h    hash.Hash // of all bytes, once Verify has ended
	done bool

	mu   sync.Mutex
	more sync.Cond
	have []bool // by block
	err  error  // why no more will come
}

// Parts opens the ingest of desc as Writer does.
func (s *Store) Parts(ctx context.Context, desc image.Descriptor) (*Parts, error) {
	if desc.Digest.IsZero() || desc.Size < 0 {
		return nil, fmt.Errorf("ingest: descriptor without digest or size")
	}
	if desc.Size > MaxParts {
		return nil, fmt.Errorf("ingest %s: %d bytes are too many for parts", desc.Digest, desc.Size)
	}
	key := desc.Digest.Algorithm() + "-" + desc.Digest.Encoded()
	if err := s.acquire(ctx, key); err != nil {
		return nil, err
	}
	p := &Parts{s: s, desc: desc, key: key, have: make([]bool, (desc.Size+Block-1)/Block)}
	p.more.L = &p.mu
	if err := p.open(); err != nil {
		s.release(key)
		return nil, err
	}
	return p, nil
}

func (p *Parts) open() (err error) {
	if err := p.s.absent(p.desc); err != nil {
		return err
	}
	p.f, err = os.OpenFile(p.s.partPath(p.desc.Digest), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("ingest %s: %w", p.desc.Digest, err)
	}
	fi, err := p.f.Stat()
	switch {
	case err != nil:
	case fi.Size() > p.desc.Size:
		var have []bool
		if have, err = readJournal(p.f, p.desc.Size); err == nil {
			p.have = have
		} else if errors.Is(err, errJournal) {
			err = p.clear()
		}
	default:
		err = p.begin(fi.Size())
	}
	if err != nil {
		p.f.Close()
		return fmt.Errorf("ingest %s: %w", p.desc.Digest, err)
	}
	return nil
}

// clear begins anew.
func (p *Parts) clear() error {
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	return p.begin(0)
}

// begin makes the journal of a file of which the first n bytes are there. The
// file becomes longer than the blob before there can be a gap in it.
func (p *Parts) begin(n int64) error {
	journal := binary.BigEndian.AppendUint64([]byte(journalMagic), uint64(p.desc.Size))
	journal = append(journal, make([]byte, len(p.have)*journalEntry)...)
	buf := make([]byte, Block)
	for i := int64(0); i < int64(len(p.have)) && n >= min((i+1)*Block, p.desc.Size); i++ {
		b := buf[:p.length(i)]
		if _, err := p.f.ReadAt(b, i*Block); err != nil {
			return err
		}
		entry(journal[int64(journalHead)+i*journalEntry:], crc32.Checksum(b, castagnoli))
		p.have[i] = true
	}
	_, err := p.f.WriteAt(journal, p.desc.Size)
	return err
}

func (p *Parts) length(i int64) int64 { return min(Block, p.desc.Size-i*Block) }

func entry(b []byte, sum uint32) {
	binary.BigEndian.PutUint32(b, sum)
	binary.BigEndian.PutUint32(b[4:], ^sum)
}

// readJournal tells which blocks of a blob's ingest are there. What is noted
// is compared with the bytes: a power cut keeps what it likes of both.
func readJournal(f *os.File, size int64) ([]bool, error) {
	if size > MaxParts {
		return nil, errJournal
	}
	have := make([]bool, (size+Block-1)/Block)
	raw := make([]byte, journalHead+len(have)*journalEntry)
	if _, err := f.ReadAt(raw, size); err == io.EOF {
		return nil, errJournal
	} else if err != nil {
		return nil, err
	}
	if string(raw[:len(journalMagic)]) != journalMagic || binary.BigEndian.Uint64(raw[len(journalMagic):]) != uint64(size) {
		return nil, errJournal
	}
	buf := make([]byte, Block)
	for i := range have {
		e := raw[journalHead+i*journalEntry:]
		sum := binary.BigEndian.Uint32(e)
		if binary.BigEndian.Uint32(e[4:]) != ^sum {
			continue
		}
		b := buf[:min(Block, size-int64(i)*Block)]
		if _, err := f.ReadAt(b, int64(i)*Block); err != nil {
			return nil, err
		}
		have[i] = crc32.Checksum(b, castagnoli) == sum
	}
	return have, nil
}

// Range is bytes of a blob: N from From on.
type Range struct{ From, N int64 }

// Missing lists what is not there, in order; each begins with a block.
func (p *Parts) Missing() []Range {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Range
	for i, have := range p.have {
		if have {
			continue
		}
		at, n := int64(i)*Block, p.length(int64(i))
		if k := len(out) - 1; k >= 0 && out[k].From+out[k].N == at {
			out[k].N += n
		} else {
			out = append(out, Range{at, n})
		}
	}
	return out
}

// Section takes in a range that begins with a block. Ranges in use at one time
// must not overlap.
func (p *Parts) Section(r Range) *Section { return &Section{p: p, at: r.From, end: r.From + r.N} }

// Section writes a range of a blob.
type Section struct {
	p       *Parts
	at, end int64
	sum     uint32 // of the block so far
}

// At is where in the blob the next byte goes.
func (s *Section) At() int64 { return s.at }

// Left is how many bytes the range lacks.
func (s *Section) Left() int64 { return s.end - s.at }

// Write implements io.Writer. More than the range is refused.
func (s *Section) Write(b []byte) (int, error) {
	if int64(len(b)) > s.Left() {
		return 0, fmt.Errorf("ingest %s: %w: more bytes than were asked for", s.p.desc.Digest, ErrMismatch)
	}
	done := 0
	for done < len(b) {
		i := s.at / Block
		end := i*Block + s.p.length(i)
		n, err := s.p.f.WriteAt(b[done:done+int(min(int64(len(b)-done), end-s.at))], s.at)
		s.sum = crc32.Update(s.sum, castagnoli, b[done:done+n])
		s.at += int64(n)
		done += n
		if err == nil && s.at == end {
			err = s.p.note(i, s.sum)
			s.sum = 0
		}
		if err != nil {
			return done, fmt.Errorf("ingest %s: %w", s.p.desc.Digest, err)
		}
	}
	return done, nil
}

// note remembers a whole block.
func (p *Parts) note(i int64, sum uint32) error {
	var e [journalEntry]byte
	entry(e[:], sum)
	if _, err := p.f.WriteAt(e[:], p.desc.Size+int64(journalHead)+i*journalEntry); err != nil {
		return err
	}
	p.mu.Lock()
	p.have[i] = true
	p.mu.Unlock()
	p.more.Broadcast()
	return nil
}

// Fail says that no more will come; readers are told err.
func (p *Parts) Fail(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
	}
	p.mu.Unlock()
	p.more.Broadcast()
}

// Reader reads the blob from its beginning, waiting for what is not there yet.
func (p *Parts) Reader() *PartsReader { return &PartsReader{p: p} }

// PartsReader is a blob on its arrival.
type PartsReader struct {
	p       *Parts
	at      int64
	waiting bool // p.mu guards it
}

// Waiting tells whether a Read waits for bytes that are not there.
func (r *PartsReader) Waiting() bool {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	return r.waiting
}

// Read implements io.Reader.
func (r *PartsReader) Read(b []byte) (int, error) {
	if r.at == r.p.desc.Size {
		return 0, io.EOF
	}
	i := r.at / Block
	r.p.mu.Lock()
	for !r.p.have[i] && r.p.err == nil {
		r.waiting = true
		r.p.more.Wait()
	}
	r.waiting = false
	have, err := r.p.have[i], r.p.err
	r.p.mu.Unlock()
	if !have {
		return 0, err
	}
	n, err := r.p.f.ReadAt(b[:min(int64(len(b)), i*Block+r.p.length(i)-r.at)], r.at)
	r.at += int64(n)
	return n, err
}

// Verify reads the whole blob, as it comes, and sums it up for Commit.
func (p *Parts) Verify() error {
	h := p.desc.Digest.Hash()
	if _, err := io.CopyBuffer(h, p.Reader(), make([]byte, 256<<10)); err != nil {
		return err
	}
	p.h = h
	return nil
}

// Commit makes the blob visible if its digest, summed up by Verify, is right.
// Content with the wrong digest is thrown away.
func (p *Parts) Commit() error {
	if p.h == nil {
		return fmt.Errorf("ingest %s: it was not verified", p.desc.Digest)
	}
	if have := image.FromHash(p.h); have != p.desc.Digest {
		err := fmt.Errorf("ingest %s: %w: it is %s", p.desc.Digest, ErrMismatch, have)
		return errors.Join(err, p.f.Truncate(0))
	}
	// Without the journal the file is the blob's beginning, all of it.
	err := p.f.Truncate(p.desc.Size)
	if err == nil {
		err = p.s.publish(p.f.Name(), p.desc.Digest)
	}
	if err != nil {
		return fmt.Errorf("ingest %s: %w", p.desc.Digest, err)
	}
	return p.Close()
}

// Close ends the ingest; without a Commit before, what is there is kept. No
// Section or Reader may be in use any more.
func (p *Parts) Close() error {
	if p.done {
		return nil
	}
	p.done = true
	err := p.f.Close()
	p.s.release(p.key)
	return err
}
