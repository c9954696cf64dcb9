package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"cale/image"
)

// fill writes a range of raw.
func fill(t *testing.T, p *Parts, raw []byte, r Range) {
	t.Helper()
	s := p.Section(r)
	for at := r.From; at < r.From+r.N; {
		n, err := s.Write(raw[at:min(at+300_000, r.From+r.N)])
		if err != nil {
			t.Fatal(err)
		}
		at += int64(n)
	}
	if s.Left() != 0 || s.At() != r.From+r.N {
		t.Errorf("%d bytes left", s.Left())
	}
}

func parts(t *testing.T, s *Store, desc image.Descriptor) *Parts {
	t.Helper()
	p, err := s.Parts(context.Background(), desc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// finish fetches what is missing and commits.
func finish(t *testing.T, p *Parts, raw []byte) {
	t.Helper()
	for _, r := range p.Missing() {
		fill(t, p, raw, r)
	}
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestParts(t *testing.T) {
	s := openAt(t, dir(t))
	raw := noise(5*Block+1234, 1)
	desc := descriptor(raw)
	p := parts(t, s, desc)
	if m := p.Missing(); len(m) != 1 || m[0] != (Range{0, desc.Size}) {
		t.Errorf("%v", m)
	}
	// The end before the beginning, while somebody reads.
	got := make(chan []byte)
	go func() {
		b, err := io.ReadAll(p.Reader())
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	fill(t, p, raw, Range{4 * Block, Block + 1234})
	fill(t, p, raw, Range{1 * Block, 2 * Block})
	if m := p.Missing(); len(m) != 2 || m[0] != (Range{0, Block}) || m[1] != (Range{3 * Block, Block}) {
		t.Errorf("%v", m)
	}
	if _, err := p.Section(Range{0, 10}).Write(make([]byte, 11)); !errors.Is(err, ErrMismatch) {
		t.Error(err)
	}
	fill(t, p, raw, Range{3 * Block, Block})
	fill(t, p, raw, Range{0, Block})
	if !bytes.Equal(<-got, raw) {
		t.Error("read something else")
	}
	finish(t, p, raw)
	if have, err := s.Read(desc.Digest, desc.Size); err != nil || !bytes.Equal(have, raw) {
		t.Error(err)
	}
	if _, err := s.Parts(context.Background(), desc); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	if _, err := s.Parts(context.Background(), image.Descriptor{Digest: image.FromBytes(nil), Size: MaxParts + 1}); err == nil {
		t.Error("took a blob without bounds")
	}
}

// TestPartsResume: blocks that were complete are not asked for again, unless
// their bytes are not what was noted.
func TestPartsResume(t *testing.T) {
	root := dir(t)
	s := openAt(t, root)
	raw := noise(6*Block+1, 2)
	desc := descriptor(raw)
	path := filepath.Join(root, "ingest", "sha256-"+desc.Digest.Encoded())
	half := func() {
		os.Remove(path)
		p := parts(t, s, desc)
		fill(t, p, raw, Range{0, Block})
		fill(t, p, raw, Range{2 * Block, 2 * Block})
		p.Section(Range{5 * Block, Block}).Write(raw[5*Block : 5*Block+1000])
		p.Close()
	}
	damage := func(at int64) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte{^raw[at]}, at); err != nil {
			t.Fatal(err)
		}
	}
	half()
	p := parts(t, s, desc)
	if m := p.Missing(); len(m) != 2 || m[0] != (Range{Block, Block}) || m[1] != (Range{4 * Block, 2*Block + 1}) {
		t.Errorf("%v", m)
	}
	p.Close()
	damage(2*Block + 7)
	p = parts(t, s, desc)
	if m := p.Missing(); len(m) != 2 || m[0] != (Range{Block, 2 * Block}) {
		t.Errorf("a damaged block is taken: %v", m)
	}
	p.Close()

	// A Writer takes the beginning and leaves the rest.
	half()
	w, err := s.Writer(context.Background(), desc)
	if err != nil || w.Offset() != Block {
		t.Fatalf("%d, %v", w.Offset(), err)
	}
	w.Write(raw[Block : 2*Block+500])
	w.Close()
	// And parts go on from what a Writer left.
	p = parts(t, s, desc)
	if m := p.Missing(); len(m) != 1 || m[0] != (Range{2 * Block, 4*Block + 1}) {
		t.Errorf("%v", m)
	}
	finish(t, p, raw)

	// A journal of nonsense, or of another size, is of no use.
	for _, spoil := range []int64{desc.Size + 2, desc.Size + int64(len(journalMagic)) + 7} {
		s.Remove(desc.Digest)
		half()
		f, _ := os.OpenFile(path, os.O_RDWR, 0)
		f.WriteAt([]byte{'?'}, spoil)
		f.Close()
		p = parts(t, s, desc)
		if m := p.Missing(); len(m) != 1 || m[0].N != desc.Size {
			t.Errorf("%v", m)
		}
		p.Close()
	}
}

func TestPartsRefused(t *testing.T) {
	s := openAt(t, dir(t))
	raw := noise(2*Block, 3)
	desc := descriptor(raw)
	p := parts(t, s, desc)
	raw[Block]++
	for _, r := range p.Missing() {
		fill(t, p, raw, r)
	}
	if err := p.Commit(); err == nil {
		t.Error("committed what was not verified")
	}
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); !errors.Is(err, ErrMismatch) {
		t.Error(err)
	}
	p.Close()
	if _, err := s.Stat(desc.Digest); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	p = parts(t, s, desc)
	if m := p.Missing(); len(m) != 1 || m[0].N != desc.Size {
		t.Errorf("wrong bytes are kept: %v", m)
	}
	why := errors.New("why")
	p.Fail(why)
	if _, err := io.ReadAll(p.Reader()); !errors.Is(err, why) {
		t.Error(err)
	}
}

// FuzzParts: whatever is found in the place of a blob's ingest, the blob comes
// out right.
func FuzzParts(f *testing.F) {
	root := dir(f)
	s, err := Open(root)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	raw := noise(300, 4)
	desc := descriptor(raw)
	path := filepath.Join(root, "ingest", "sha256-"+desc.Digest.Encoded())
	journal := binary.BigEndian.AppendUint64(append(bytes.Clone(raw), journalMagic...), 300)
	f.Add(append(journal, 0, 0, 0, 0, 255, 255, 255, 255))
	f.Add(append(bytes.Clone(journal), make([]byte, 8)...))
	f.Add(raw)
	f.Add(raw[:10])
	f.Fuzz(func(t *testing.T, left []byte) {
		if err := os.WriteFile(path, left, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // what is left may be the right length and wrong
			p := parts(t, s, desc)
			for _, r := range p.Missing() {
				fill(t, p, raw, r)
			}
			if err := p.Verify(); err != nil {
				t.Fatal(err)
			}
			err := p.Commit()
			p.Close()
			if err == nil {
				break
			}
			if !errors.Is(err, ErrMismatch) {
				t.Fatal(err)
			}
		}
		if _, err := s.Read(desc.Digest, 300); err != nil {
			t.Fatal(err)
		}
		s.Remove(desc.Digest)
	})
}
