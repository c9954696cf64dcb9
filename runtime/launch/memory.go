package launch

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is what a program is written in. It lies outside of Go's heap: it is used once and all goes away together,
// where a heap that is seldom collected, as a supervisor's, would keep a quarter of a megabyte for it. And an address
// in it may be a number, since nothing there moves.
type memory struct {
	chunks [][]byte
	left   []byte // of the last chunk
}

// chunkSize is what is asked of the kernel at once, in bytes. A page takes memory only when it is written to.
const chunkSize = 1 << 20

// take returns zeroed bytes, aligned to 8.
func (m *memory) take(n uintptr) unsafe.Pointer {
	size := max((int(n)+7)&^7, 8)
	if size > len(m.left) {
		chunk, err := unix.Mmap(-1, 0, max(size, chunkSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			panic("launch: out of memory: " + err.Error()) // as Go itself does
		}
		m.chunks = append(m.chunks, chunk)
		m.left = chunk
	}
	b := m.left[:size]
	m.left = m.left[size:]
	return unsafe.Pointer(&b[0])
}

func (m *memory) free() {
	for _, c := range m.chunks {
		_ = unix.Munmap(c)
	}
	*m = memory{}
}
