package layer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"cale/layer/inflate"
)

// maxWindow bounds the memory a zstd frame may ask for, in bytes; it is what
// zstd -22 --ultra needs.
const maxWindow = 128 << 20

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
	xzMagic   = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	bzipMagic = []byte{'B', 'Z', 'h'}
)

var (
	sources = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 64<<10) }}
	gzips   = sync.Pool{New: func() any { return inflate.NewReader(nil) }}
	zstds   sync.Pool
)

// Decompress reads gzip, zstd or plain data, told apart by their first bytes:
// what the digest of the plain form verifies need not be believed by its media
// type. Reading is done ahead in a goroutine, so that decompression and the
// use of its result overlap. Close ends the goroutine, and waits for it: it
// may be in a Read of r. After the end of the data r has been read to its end.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	d, err := newDecoder(r)
	if err != nil {
		return nil, err
	}
	return newAhead(d), nil
}

// decoder is the synchronous half.
type decoder struct {
	src  *bufio.Reader
	gz   *inflate.Reader
	zs   *zstd.Decoder
	read io.Reader
}

func newDecoder(r io.Reader) (*decoder, error) {
	d := &decoder{src: sources.Get().(*bufio.Reader)}
	d.src.Reset(r)
	head, err := d.src.Peek(6)
	if err != nil && err != io.EOF {
		d.release()
		return nil, err
	}
	err = nil
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		d.gz = gzips.Get().(*inflate.Reader)
		d.gz.Reset(d.src)
		d.read = d.gz
	case bytes.HasPrefix(head, zstdMagic),
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}): // skippable frame
		d.zs, _ = zstds.Get().(*zstd.Decoder)
		if d.zs == nil {
			d.zs, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxWindow(maxWindow))
			if err != nil {
				break
			}
		}
		err = d.zs.Reset(d.src)
		d.read = d.zs
	case bytes.HasPrefix(head, xzMagic), bytes.HasPrefix(head, bzipMagic):
		err = errors.New("xz and bzip2 are not supported for layers: use gzip or zstd")
	default:
		d.read = d.src
	}
	if err != nil {
		d.release()
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return d, nil
}

// release gives the buffers back for another layer.
func (d *decoder) release() {
	if d.gz != nil {
		d.gz.Reset(nil)
		gzips.Put(d.gz)
	}
	if d.zs != nil {
		d.zs.Reset(nil)
		zstds.Put(d.zs)
	}
	d.src.Reset(nil)
	sources.Put(d.src)
	*d = decoder{}
}

const (
	chunkSize = 128 << 10
	chunks    = 6 // read ahead at most, for each stream
)

var chunkPool = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// ahead reads a decoder in a goroutine.
type ahead struct {
	full chan chunk
	free chan *[chunkSize]byte
	done chan struct{} // closed by Close
	quit sync.Once

	cur  chunk // what Read takes from
	rest []byte
	err  error
}

type chunk struct {
	buf *[chunkSize]byte
	n   int
	err error
}

func newAhead(d *decoder) *ahead {
	a := &ahead{
		full: make(chan chunk, chunks),
		free: make(chan *[chunkSize]byte, chunks),
		done: make(chan struct{}),
	}
	go a.fill(d)
	return a
}

func (a *ahead) fill(d *decoder) {
	defer close(a.full)
	defer d.release()
	for made := 0; ; {
		var buf *[chunkSize]byte
		select {
		case buf = <-a.free:
		default:
			if made < chunks {
				buf = chunkPool.Get().(*[chunkSize]byte)
				made++
				break
			}
			select {
			case buf = <-a.free:
			case <-a.done:
				return
			}
		}
		n, err := readFull(d.read, buf[:])
		select {
		case a.full <- chunk{buf, n, err}:
		case <-a.done:
			chunkPool.Put(buf)
			return
		}
		if err != nil {
			return
		}
	}
}

// readFull fills p unless an error comes first, which it returns as it is: for
// io.ReadFull a stream that ends and one that was cut look alike.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for empty := 0; n < len(p) && err == nil; {
		var m int
		m, err = r.Read(p[n:])
		n += m
		if m > 0 {
			empty = 0
		} else if empty++; empty > 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

// next is the following chunk of data, valid until the call after.
func (a *ahead) next() ([]byte, error) {
	if a.cur.buf != nil {
		a.free <- a.cur.buf
		a.cur = chunk{}
	}
	if a.err != nil {
		return nil, a.err
	}
	c, ok := <-a.full
	if !ok {
		a.err = io.ErrClosedPipe
		return nil, a.err
	}
	a.cur, a.err = c, c.err
	if c.n == 0 && c.err != nil {
		return nil, c.err
	}
	return c.buf[:c.n], nil
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		b, err := a.next()
		if err != nil {
			return 0, err
		}
		a.rest = b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (a *ahead) Close() error {
	a.quit.Do(func() {
		close(a.done)
		for c := range a.full {
			chunkPool.Put(c.buf)
		}
		if a.cur.buf != nil {
			chunkPool.Put(a.cur.buf)
			a.cur, a.rest = chunk{}, nil
		}
		for {
			select {
			case buf := <-a.free:
				chunkPool.Put(buf)
				continue
			default:
			}
			break
		}
		if a.err == nil {
			a.err = io.ErrClosedPipe
		}
	})
	return nil
}

// Bound reads r and fails with ErrTooLarge beyond max bytes: what was small as
// it came may have no end when it is undone.
func Bound(r io.Reader, max int64) io.Reader { return &bounded{r, max, max} }

type bounded struct {
	r         io.Reader
	left, max int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, fmt.Errorf("%w of %d bytes", ErrTooLarge, b.max)
	}
	// One byte more than may come tells the end from too much.
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, fmt.Errorf("%w of %d bytes", ErrTooLarge, b.max)
	}
	return n, err
}
