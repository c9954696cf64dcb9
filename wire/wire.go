// Package wire encodes and decodes protobuf's wire format by hand. It exists
// because a shim's memory and start time are paid per pod, and a runtime's start
// time per call: the full protobuf runtime hashes its own binary at start and
// keeps tables of every message.
// See https://protobuf.dev/programming-guides/encoding/.
package wire

import "errors"

// ErrMalformed tells that bytes are not a protobuf message.
var ErrMalformed = errors.New("malformed protobuf message")

// Wire types.
const (
	Varint  = 0
	Fixed64 = 1
	Bytes   = 2
	Fixed32 = 5
)

// AppendVarint appends v in base 128.
func AppendVarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// AppendUint appends a numeric field, or nothing when v is zero (proto3).
func AppendUint(b []byte, field int, v uint64) []byte {
	if v == 0 {
		return b
	}
	return AppendNum(b, field, v)
}

// AppendNum appends a numeric field, also when it is zero: in proto2 a field that
// isn't there has another meaning.
func AppendNum(b []byte, field int, v uint64) []byte {
	return AppendVarint(AppendVarint(b, uint64(field)<<3|Varint), v)
}

// AppendBool appends a bool field, or nothing when it is false.
func AppendBool(b []byte, field int, v bool) []byte {
	if !v {
		return b
	}
	return AppendUint(b, field, 1)
}

// AppendString appends a string field, or nothing when it is empty.
func AppendString(b []byte, field int, s string) []byte {
	if s == "" {
		return b
	}
	b = AppendVarint(AppendVarint(b, uint64(field)<<3|Bytes), uint64(len(s)))
	return append(b, s...)
}

// AppendBytes appends a bytes or message field, also when it is empty.
func AppendBytes(b []byte, field int, p []byte) []byte {
	b = AppendVarint(AppendVarint(b, uint64(field)<<3|Bytes), uint64(len(p)))
	return append(b, p...)
}

// ConsumeVarint splits a varint off b.
func ConsumeVarint(b []byte) (v uint64, rest []byte, err error) {
	for i := 0; i < len(b) && i < 10; i++ {
		c := b[i]
		if i == 9 && c > 1 {
			return 0, nil, ErrMalformed
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, b[i+1:], nil
		}
	}
	return 0, nil, ErrMalformed
}

// Field is one decoded field. Num holds varint and fixed values, Data the bytes
// of a string, bytes or message field (a slice of the input).
type Field struct {
	ID   int
	Type int
	Num  uint64
	Data []byte
}

// Each calls fn with every field of the message b until fn fails. Fields of a
// wire type other than wanted are for fn to tell by Type; unknown ones to skip.
func Each(b []byte, fn func(f Field) error) error {
	for len(b) > 0 {
		tag, rest, err := ConsumeVarint(b)
		if err != nil {
			return err
		}
		f := Field{ID: int(tag >> 3), Type: int(tag & 7)}
		if tag>>3 == 0 || tag>>3 > 1<<31-1 {
			return ErrMalformed
		}
		switch f.Type {
		case Varint:
			f.Num, rest, err = ConsumeVarint(rest)
		case Fixed64:
			f.Num, rest, err = fixed(rest, 8)
		case Fixed32:
			f.Num, rest, err = fixed(rest, 4)
		case Bytes:
			var n uint64
			n, rest, err = ConsumeVarint(rest)
			if err == nil && n > uint64(len(rest)) {
				err = ErrMalformed
			}
			if err == nil {
				f.Data, rest = rest[:n:n], rest[n:]
			}
		default:
			err = ErrMalformed
		}
		if err != nil {
			return err
		}
		if err := fn(f); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func fixed(b []byte, n int) (v uint64, rest []byte, err error) {
	if len(b) < n {
		return 0, nil, ErrMalformed
	}
	for i := range n {
		v |= uint64(b[i]) << (8 * i)
	}
	return v, b[n:], nil
}
