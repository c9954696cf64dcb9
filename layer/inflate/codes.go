package inflate

import (
	"encoding/binary"
	"io"
)

// codes decompresses a block's literals and matches until it ends or the
// window is full. The Reader's fields live in variables meanwhile.
func (z *Reader) codes() error {
	var (
		lit, dist = z.lit, z.dist
		b, n      = z.bits, z.nbits
		pos, end  = z.pos, z.end
		wr        = z.wr
		in, win   = &z.in, &z.win
		err       error
	)
loop:
	for wr < winSize {
		// Two refills of 8 bytes may come before the next look at the input.
		if end-pos < 16 {
			z.bits, z.nbits, z.pos = b, n, pos
			err = z.fill(16)
			pos, end = z.pos, z.end
			if err != nil {
				break
			}
		}
		b |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56

		e := lit[b&(1<<litBits-1)]
		if e&flagLiteral != 0 {
			// Up to three literals fit before bits run low.
			win[wr] = byte(e >> 16)
			wr++
			b >>= e & 63
			n -= uint(e & 63)
			e = lit[b&(1<<litBits-1)]
			if e&flagLiteral != 0 {
				win[wr] = byte(e >> 16)
				wr++
				b >>= e & 63
				n -= uint(e & 63)
				e = lit[b&(1<<litBits-1)]
				if e&flagLiteral != 0 {
					win[wr] = byte(e >> 16)
					wr++
					b >>= e & 63
					n -= uint(e & 63)
					continue
				}
			}
			b |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
			pos += int((63 - n) >> 3)
			n |= 56
		}
		if e&flagSpecial != 0 {
			if e&flagEnd == 0 {
				b >>= litBits
				n -= litBits
				i := uint(e>>16) + uint(b)&(1<<(e>>8&15)-1)
				if i >= litSize {
					err = ErrCorrupt
					break
				}
				e = lit[i]
				if e&flagLiteral != 0 {
					win[wr] = byte(e >> 16)
					wr++
					b >>= e & 63
					n -= uint(e & 63)
					continue
				}
			}
			if e&flagEnd != 0 {
				b >>= e & 63
				n -= uint(e & 63)
				z.step = (*Reader).block
				break loop
			}
		}
		if e == 0 {
			err = ErrCorrupt
			break
		}
		length := int(e>>16) + int(b&(1<<(e&63)-1)>>(e>>8&15))
		b >>= e & 63
		n -= uint(e & 63)

		e = dist[b&(1<<distBits-1)]
		if e&flagSpecial != 0 {
			b >>= distBits
			n -= distBits
			i := uint(e>>16) + uint(b)&(1<<(e>>8&15)-1)
			if i >= distSize {
				err = ErrCorrupt
				break
			}
			e = dist[i]
		}
		if e == 0 {
			err = ErrCorrupt
			break
		}
		d := int(e>>16) + int(b&(1<<(e&63)-1)>>(e>>8&15))
		b >>= e & 63
		n -= uint(e & 63)
		if d > wr-z.start {
			err = ErrCorrupt
			break
		}
		from := wr - d
		switch {
		case d >= 8:
			// In words, a little beyond the end; the window has the room.
			to, src := win[wr:wr+length+8], win[from:from+length+8]
			for i := 0; i < length; i += 8 {
				binary.LittleEndian.PutUint64(to[i:], binary.LittleEndian.Uint64(src[i:]))
			}
		case d == 1:
			v := uint64(win[from]) * 0x0101010101010101
			to := win[wr : wr+length+8]
			for i := 0; i < length; i += 8 {
				binary.LittleEndian.PutUint64(to[i:], v)
			}
		default:
			for i := range length {
				win[wr+i] = win[from+i]
			}
		}
		wr += length
	}
	z.bits, z.nbits, z.pos, z.wr = b, n, pos, wr
	if err == nil && z.overrun() {
		err = io.ErrUnexpectedEOF
	}
	return err
}
