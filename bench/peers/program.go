package peers

import (
	"encoding/binary"
	"runtime"
)

// True is the smallest program that ends with status 0. What is to be measured is the container, not the start of
// what runs in it.
func True() []byte {
	if runtime.GOARCH == "arm64" {
		return elf(183, []byte{0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0x52, 1, 0, 0, 0xd4}) // x0 = 0; w8 = exit; svc
	}
	return elf(62, []byte{0xb0, 60, 0x31, 0xff, 0x0f, 0x05}) // al = exit; edi = 0; syscall
}

// Pause is the smallest program that does nothing for ever.
func Pause() []byte {
	if runtime.GOARCH == "arm64" {
		return elf(183, []byte{0, 0, 0x80, 0xd2, 1, 0, 0x80, 0xd2, 2, 0, 0x80, 0xd2, 3, 0, 0x80, 0xd2, // x0..x3 = 0
			0x28, 0x09, 0x80, 0x52, 1, 0, 0, 0xd4, 0xfa, 0xff, 0xff, 0x17}) // w8 = ppoll; svc; again
	}
	return elf(62, []byte{0x6a, 34, 0x58, 0x0f, 0x05, 0xeb, 0xf9}) // rax = pause; syscall; again
}

// elf puts an executable's header before 64-bit machine code.
func elf(machine uint16, code []byte) []byte {
	const base, header = 0x400000, 64 + 56
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	for _, v := range []uint64{base + header, 64, 0} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1)
	b = le.AppendUint32(b, 5)
	size := uint64(header + len(code))
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
