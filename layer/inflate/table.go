package inflate

import "math/bits"

// A table is indexed by the next bits of input. Codes longer than its index go
// on in a second table behind it, which the entry of their first bits names.
// An entry, from the lowest bit:
//
//	0-7   bits to consume: the code (or, for a second table, its first part) and the extra bits
//	8-11  bits of the code alone; for a second table, the bits of its index
//	13    end of block
//	14    not a literal or length: end of block, or a second table
//	15    literal
//	16-31 literal, base of the length or distance, or start of the second table
//
// 0 is a code that does not exist.
const (
	flagEnd     = 1 << 13
	flagSpecial = 1 << 14
	flagLiteral = 1 << 15
)

const (
	litBits  = 11
	distBits = 8
	codeBits = 7 // of the code that the lengths of the other codes are written in
	maxCode  = 15

	// The most entries any complete code needs, rounded up (zlib's "enough"
	// program: 2342 for 288 symbols and 11 bits, 402 for 32 and 8).
	litSize  = 2400
	distSize = 512
)

var (
	litEntries  [288]uint32
	distEntries [32]uint32
	codeEntries [19]uint32
	fixedLit    [litSize]uint32
	fixedDist   [distSize]uint32
)

// initTables fills the constant tables; it runs once, when first needed.
func initTables() {
	for i := range 256 {
		litEntries[i] = uint32(i)<<16 | flagLiteral
	}
	litEntries[256] = flagSpecial | flagEnd
	base := 3
	for i := 257; i < 285; i++ {
		extra := 0
		if i >= 265 {
			extra = (i - 261) / 4
		}
		litEntries[i] = uint32(base)<<16 | uint32(extra)
		base += 1 << extra
	}
	litEntries[285] = 258 << 16
	base = 1
	for i := range 30 {
		extra := 0
		if i >= 4 {
			extra = i/2 - 1
		}
		distEntries[i] = uint32(base)<<16 | uint32(extra)
		base += 1 << extra
	}
	for i := range codeEntries {
		codeEntries[i] = uint32(i)<<16 | flagSpecial // not 0
	}
	var lens [288]uint8
	for i := range lens {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 8
		}
	}
	build(fixedLit[:], lens[:], litEntries[:], litBits)
	for i := range 32 {
		lens[i] = 5
	}
	build(fixedDist[:], lens[:32], distEntries[:], distBits)
}

// build makes the table of the code whose symbols have these lengths (0: not
// used). entries are what the symbols mean. Codes that use more or less than
// the whole code space are refused, but for none and for one code of one bit,
// as everyone does.
func build(table []uint32, lens []uint8, entries []uint32, tableBits uint) bool {
	var count [maxCode + 2]int
	for _, n := range lens {
		count[n]++
	}
	count[0] = 0
	space, used := 0, 0
	for n := 1; n <= maxCode; n++ {
		space = space<<1 + count[n]
		if space > 1<<n {
			return false
		}
		used += count[n]
	}
	complete := space == 1<<maxCode
	if !complete {
		if used > 1 || used == 1 && count[1] != 1 {
			return false
		}
		clear(table)
	}
	// Symbols in the order of their codes.
	var offset [maxCode + 2]int
	for n := 1; n <= maxCode; n++ {
		offset[n+1] = offset[n] + count[n]
	}
	var sorted [288]uint16
	for sym, n := range lens {
		if n != 0 {
			sorted[offset[n]] = uint16(sym)
			offset[n]++
		}
	}
	code, next := uint(0), 1<<tableBits // next: where the next second table goes
	prefix, subStart, subBits := -1, 0, uint(0)
	i := 0
	for n := uint(1); n <= maxCode; n++ {
		for k := range count[n] {
			e := entries[sorted[i]] // 0 for the few symbols that mean nothing
			i++
			rev := int(bits.Reverse16(uint16(code)) >> (16 - n))
			code++
			extra := e & 0xff
			if n <= tableBits {
				if e != 0 {
					e = e&^0xff | uint32(n)<<8 | (uint32(n) + extra)
				}
				for ; rev < 1<<tableBits; rev += 1 << n {
					table[rev] = e
				}
				continue
			}
			if p := rev & (1<<tableBits - 1); p != prefix {
				prefix, subStart = p, next
				subBits = n - tableBits
				for full := count[n] - k; full < 1<<subBits && tableBits+subBits < maxCode; {
					subBits++
					full = full<<1 + count[tableBits+subBits]
				}
				next += 1 << subBits
				if next > len(table) {
					return false
				}
				table[p] = uint32(subStart)<<16 | flagSpecial | uint32(subBits)<<8 | uint32(tableBits)
			}
			m := n - tableBits
			if e != 0 {
				e = e&^0xff | uint32(m)<<8 | (uint32(m) + extra)
			}
			for j := rev >> tableBits; j < 1<<subBits; j += 1 << m {
				table[subStart+j] = e
			}
		}
		code <<= 1
	}
	return true
}
