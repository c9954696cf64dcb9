// Package ttrpc is the small RPC protocol between containerd and its shims:
// framed protobuf messages over a local stream socket, unary calls only.
// See PROTOCOL.md of github.com/containerd/ttrpc.
package ttrpc

import (
	"encoding/binary"
	"errors"
	"io"
)

const (
	headerSize = 10
	// MaxMessage is the largest data a frame may carry, in bytes, by the protocol.
	MaxMessage = 4 << 20

	typeRequest  = 1
	typeResponse = 2
	typeData     = 3
)

// ErrTooLarge refuses a frame beyond MaxMessage.
var ErrTooLarge = errors.New("ttrpc: message larger than 4 MiB")

// A frame's flags are not kept: a unary call has none.
type header struct {
	length uint32
	stream uint32
	kind   byte
}

func readHeader(r io.Reader, buf *[headerSize]byte) (header, error) {
	if _, err := io.ReadFull(r, buf[:]); err != nil {
		return header{}, err
	}
	h := header{
		length: binary.BigEndian.Uint32(buf[0:4]),
		stream: binary.BigEndian.Uint32(buf[4:8]),
		kind:   buf[8],
	}
	if h.length > MaxMessage {
		return header{}, ErrTooLarge
	}
	return h, nil
}

// appendFrame appends header and data of one frame, so that one write sends it.
func appendFrame(b []byte, stream uint32, kind byte, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	b = binary.BigEndian.AppendUint32(b, stream)
	b = append(b, kind, 0)
	return append(b, data...)
}
