// Package inflate decompresses gzip (RFC 1951 and 1952), for throughput: it
// reads and writes ahead as it likes and keeps its state in registers over a
// whole block. It is about twice as fast as the flate packages that stop at
// every byte, which is what the time of unpacking an image mostly is.
//
// It does not trust its input: every index is checked, by the compiler where
// it is not in the code.
package inflate

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync"
)

// Errors of the format. A stream that ends too early is io.ErrUnexpectedEOF.
var (
	ErrHeader   = errors.New("gzip: invalid header")
	ErrCorrupt  = errors.New("gzip: corrupt data")
	ErrChecksum = errors.New("gzip: invalid checksum")
)

const (
	inSize  = 64 << 10
	history = 32 << 10
	winSize = history + 192<<10
	slack   = 2 + 258 + 8 + 4 // two literals and a match may be written in one go, in words
	pad     = 8               // zeros after the end of input
)

// Reader decompresses a gzip stream of one or more members.
type Reader struct {
	src  io.Reader
	in   [inSize + pad]byte
	pos  int // next byte of in to go into bits
	end  int // end of what is in in, padding included
	pads int // bytes of padding at its end
	eof  bool

	bits  uint64 // upcoming input, lowest first; above the lowest nbits it may hold more, uncounted
	nbits uint

	win   [winSize + slack]byte
	start int // where the present member's output begins in win
	rd    int // win[rd:wr] is decompressed and not read yet
	wr    int

	step   func(*Reader) error // what comes next in the stream
	last   bool                // the block is the member's last
	stored int                 // bytes left of a stored block
	crc    uint32
	size   uint32
	err    error

	lit     *[litSize]uint32
	dist    *[distSize]uint32
	litBuf  [litSize]uint32
	distBuf [distSize]uint32
}

var tables sync.Once

// NewReader is a Reader of r.
func NewReader(r io.Reader) *Reader {
	z := &Reader{}
	z.Reset(r)
	return z
}

// Reset makes z read another stream.
func (z *Reader) Reset(r io.Reader) {
	tables.Do(initTables)
	z.src, z.pos, z.end, z.pads, z.eof = r, 0, 0, 0, false
	z.bits, z.nbits = 0, 0
	z.start, z.rd, z.wr = 0, 0, 0
	z.step, z.err = (*Reader).member, nil
}

// Read implements io.Reader.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for z.rd == z.wr {
		if z.err != nil {
			return 0, z.err
		}
		z.slide()
		from := z.wr
		for z.err == nil && z.wr < winSize-history {
			z.err = z.step(z)
			if z.err == ErrCorrupt && z.eof && z.end-z.pads-z.pos+int(z.nbits>>3) < 8 {
				z.err = io.ErrUnexpectedEOF // less is left than the trailer: it was cut
			}
			if z.err == io.ErrUnexpectedEOF {
				z.wr = from // the last of it may come of padding
			}
			z.account(from)
			from = z.wr
		}
	}
	n := copy(p, z.win[z.rd:z.wr])
	z.rd += n
	return n, nil
}

// account adds what was decompressed to the member's checksum.
func (z *Reader) account(from int) {
	z.crc = crc32.Update(z.crc, crc32.IEEETable, z.win[from:z.wr])
	z.size += uint32(z.wr - from)
}

// slide makes room in the window; the last 32 KiB stay for matches.
func (z *Reader) slide() {
	if z.wr <= history {
		return
	}
	by := z.wr - history
	copy(z.win[:history], z.win[by:z.wr])
	z.wr = history
	z.rd = z.wr
	z.start = max(0, z.start-by)
}

// fill reads on until at least want bytes (at most pad) follow pos. At the end
// of input it adds zeros, so that words can be read there, as long as no more
// bits have been consumed than there were.
func (z *Reader) fill(want int) error {
	// Whole bytes in bits can still be given back: they stay.
	by := max(0, z.pos-8)
	copy(z.in[:], z.in[by:z.end])
	z.pos, z.end = z.pos-by, z.end-by
	z.pads = min(z.pads, z.end)
	for empty := 0; !z.eof && z.end-z.pos < want; {
		n, err := z.src.Read(z.in[z.end:inSize])
		z.end += n
		if err == io.EOF {
			z.eof = true
		} else if err != nil {
			return err
		}
		if n > 0 {
			empty = 0
		} else if empty++; empty > 100 && err == nil {
			return io.ErrNoProgress
		}
	}
	if z.end-z.pos >= want {
		return nil
	}
	if z.overrun() {
		return io.ErrUnexpectedEOF
	}
	for z.end-z.pos < want {
		z.in[z.end] = 0
		z.end++
		z.pads++
	}
	return nil
}

// overrun tells that padding was consumed as if it were input.
func (z *Reader) overrun() bool {
	return z.eof && z.pads > 0 && z.pos-int(z.nbits>>3) > z.end-z.pads
}

// refill makes sure of 56 bits.
func (z *Reader) refill() error {
	if z.end-z.pos < 8 {
		if err := z.fill(8); err != nil {
			return err
		}
	}
	z.bits |= binary.LittleEndian.Uint64(z.in[z.pos:]) << (z.nbits & 63)
	z.pos += int((63 - z.nbits) >> 3)
	z.nbits |= 56
	return nil
}

// take consumes n bits, which refill has made sure of.
func (z *Reader) take(n uint) uint32 {
	v := uint32(z.bits & (1<<n - 1))
	z.bits >>= n
	z.nbits -= n
	return v
}

// align goes to the next byte and gives whole bytes in bits back to in.
func (z *Reader) align() {
	z.pos -= int(z.nbits >> 3)
	z.bits, z.nbits = 0, 0
}

// bytes is the next n (at most 8) bytes of input, after align.
func (z *Reader) bytes(n int) ([]byte, error) {
	if z.end-z.pos < n {
		if err := z.fill(n); err != nil {
			return nil, err
		}
	}
	b := z.in[z.pos : z.pos+n]
	z.pos += n
	if z.overrun() {
		return nil, io.ErrUnexpectedEOF
	}
	return b, nil
}

// member reads the header of the first member.
func (z *Reader) member() error {
	b, err := z.bytes(4)
	if err != nil {
		return err
	}
	if b[0] != 0x1f || b[1] != 0x8b || b[2] != 8 {
		return ErrHeader
	}
	flags := b[3]
	if _, err := z.bytes(6); err != nil { // time, level, system
		return err
	}
	if flags&4 != 0 { // extra field
		if b, err = z.bytes(2); err != nil {
			return err
		}
		for n := binary.LittleEndian.Uint16(b); n > 0; n-- {
			if _, err := z.bytes(1); err != nil {
				return err
			}
		}
	}
	for f := byte(8); f <= 16; f <<= 1 { // name and comment, ended by zeros
		for flags&f != 0 {
			if b, err = z.bytes(1); err != nil {
				return err
			}
			if b[0] == 0 {
				break
			}
		}
	}
	if flags&2 != 0 { // checksum of the header: the content's own is enough
		if _, err := z.bytes(2); err != nil {
			return err
		}
	}
	z.crc, z.size, z.start, z.last = 0, 0, z.wr, false
	z.step = (*Reader).block
	return nil
}

// trailer checks the sums after a member, and whether another one follows.
func (z *Reader) trailer() error {
	z.align()
	b, err := z.bytes(8)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b) != z.crc || binary.LittleEndian.Uint32(b[4:]) != z.size {
		return ErrChecksum
	}
	if z.end-z.pads-z.pos <= 0 {
		if err := z.fill(1); err != nil {
			return err
		}
		if z.end-z.pads-z.pos <= 0 {
			return io.EOF
		}
	}
	z.step = (*Reader).member
	return nil
}

// block reads the header of a block.
func (z *Reader) block() error {
	if z.last {
		z.step = (*Reader).trailer
		return nil
	}
	if err := z.refill(); err != nil {
		return err
	}
	z.last = z.take(1) == 1
	switch z.take(2) {
	case 0:
		z.bits >>= z.nbits & 7
		z.nbits &^= 7
		z.align()
		b, err := z.bytes(4)
		if err != nil {
			return err
		}
		n := binary.LittleEndian.Uint16(b)
		if binary.LittleEndian.Uint16(b[2:]) != ^n {
			return ErrCorrupt
		}
		z.stored = int(n)
		z.step = (*Reader).copyStored
		return nil
	case 1:
		z.lit, z.dist = &fixedLit, &fixedDist
		z.step = (*Reader).codes
		return nil
	case 2:
		return z.dynamic()
	}
	return ErrCorrupt
}

// copyStored copies what there is of a block that is not compressed.
func (z *Reader) copyStored() error {
	for z.stored > 0 {
		if z.wr >= winSize {
			return nil
		}
		if z.end-z.pads == z.pos {
			if err := z.fill(1); err != nil {
				return err
			}
			if z.pads > 0 {
				return io.ErrUnexpectedEOF
			}
		}
		n := copy(z.win[z.wr:min(winSize, z.wr+z.stored)], z.in[z.pos:z.end-z.pads])
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		z.wr += n
		z.pos += n
		z.stored -= n
	}
	z.step = (*Reader).block
	return nil
}

// lengthOrder is the order in which the lengths of the length code come.
var lengthOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the codes of a block.
func (z *Reader) dynamic() error {
	nlit, ndist, ncode := int(z.take(5))+257, int(z.take(5))+1, int(z.take(4))+4
	if nlit > 286 || ndist > 30 {
		return ErrCorrupt
	}
	var lens [286 + 30]uint8
	var codeLens [19]uint8
	for i := range ncode {
		if err := z.refill(); err != nil {
			return err
		}
		codeLens[lengthOrder[i]] = uint8(z.take(3))
	}
	var table [1 << codeBits]uint32
	if !build(table[:], codeLens[:], codeEntries[:], codeBits) {
		return ErrCorrupt
	}
	for i := 0; i < nlit+ndist; {
		if err := z.refill(); err != nil {
			return err
		}
		e := table[z.bits&(1<<codeBits-1)]
		if e == 0 {
			return ErrCorrupt
		}
		z.take(uint(e & 0xff))
		sym, run, fill := e>>16, 0, uint8(0)
		switch {
		case sym < 16:
			lens[i] = uint8(sym)
			i++
			continue
		case sym == 16:
			if i == 0 {
				return ErrCorrupt
			}
			run, fill = 3+int(z.take(2)), lens[i-1]
		case sym == 17:
			run = 3 + int(z.take(3))
		default:
			run = 11 + int(z.take(7))
		}
		if i+run > nlit+ndist {
			return ErrCorrupt
		}
		for ; run > 0; run-- {
			lens[i] = fill
			i++
		}
	}
	if lens[256] == 0 { // a block that cannot end
		return ErrCorrupt
	}
	if !build(z.litBuf[:], lens[:nlit], litEntries[:], litBits) || !build(z.distBuf[:], lens[nlit:nlit+ndist], distEntries[:], distBits) {
		return ErrCorrupt
	}
	z.lit, z.dist = &z.litBuf, &z.distBuf
	z.step = (*Reader).codes
	return nil
}
