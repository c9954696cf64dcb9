// Package dbus speaks D-Bus by hand, as far as asking systemd for control groups takes: calls, their answers, and
// signals, on a Unix socket. A library would be a tenth of a start, and everything it could do more is a risk.
//
// Values are Go's: byte, bool, int32, uint32, uint64, string (for s, o and g), []any (for arrays and structures) and
// Variant, as the D-Bus specification's type signatures say.
package dbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Variant is a value with its type.
type Variant struct {
	Signature string
	Value     any
}

// maxMessage bounds a message; systemd's answers are some hundred bytes.
const maxMessage = 1 << 20

// maxSpecified is the specification's bound ("Message Format").
const maxSpecified = 1 << 27

// maxDepth bounds how deep arrays and structures may be in each other (the specification's limit is 64).
const maxDepth = 16

var (
	order       = binary.LittleEndian
	errShort    = errors.New("dbus: message too short")
	errTypes    = errors.New("dbus: value and type differ")
	errUnknown  = errors.New("dbus: unknown type")
	alignments  = map[byte]int{'y': 1, 'g': 1, 'v': 1, 'n': 2, 'q': 2, 'b': 4, 'i': 4, 'u': 4, 's': 4, 'o': 4, 'a': 4, 'x': 8, 't': 8, 'd': 8, '(': 8, '{': 8}
	errTooLong  = errors.New("dbus: message too long")
	errTooDeep  = errors.New("dbus: nested too deep")
	errBadBytes = errors.New("dbus: malformed message")
)

// one cuts the first complete type off a signature.
func one(sig string) (first, rest string, err error) {
	for i := 0; i < len(sig); i++ {
		switch sig[i] {
		case 'a':
			continue
		case '(', '{':
			depth := 0
			for j := i; j < len(sig); j++ {
				switch sig[j] {
				case '(', '{':
					depth++
				case ')', '}':
					if depth--; depth == 0 {
						return sig[:j+1], sig[j+1:], nil
					}
				}
			}
			return "", "", errUnknown
		default:
			if alignments[sig[i]] == 0 {
				return "", "", errUnknown
			}
			return sig[:i+1], sig[i+1:], nil
		}
	}
	return "", "", errUnknown
}

func pad(b []byte, n int) []byte {
	for len(b)%n != 0 {
		b = append(b, 0)
	}
	return b
}

// appendValues appends values of the types a signature lists.
func appendValues(b []byte, sig string, values []any) ([]byte, error) {
	for _, v := range values {
		first, rest, err := one(sig)
		if err != nil {
			return nil, err
		}
		if b, err = appendValue(b, first, v); err != nil {
			return nil, err
		}
		sig = rest
	}
	if sig != "" {
		return nil, errTypes
	}
	return b, nil
}

func appendValue(b []byte, sig string, v any) ([]byte, error) {
	b = pad(b, alignments[sig[0]])
	ok := true
	switch sig[0] {
	case 'y':
		var x byte
		x, ok = v.(byte)
		b = append(b, x)
	case 'b':
		var x bool
		x, ok = v.(bool)
		n := uint32(0)
		if x {
			n = 1
		}
		b = order.AppendUint32(b, n)
	case 'i':
		var x int32
		x, ok = v.(int32)
		b = order.AppendUint32(b, uint32(x))
	case 'u':
		var x uint32
		x, ok = v.(uint32)
		b = order.AppendUint32(b, x)
	case 't':
		var x uint64
		x, ok = v.(uint64)
		b = order.AppendUint64(b, x)
	case 's', 'o':
		var x string
		x, ok = v.(string)
		if strings.ContainsRune(x, 0) {
			return nil, fmt.Errorf("dbus: %q has a zero byte", x)
		}
		b = append(append(order.AppendUint32(b, uint32(len(x))), x...), 0)
	case 'g':
		var x string
		x, ok = v.(string)
		b = append(append(append(b, byte(len(x))), x...), 0)
	case 'v':
		x, isVariant := v.(Variant)
		if !isVariant {
			return nil, errTypes
		}
		b = append(append(append(b, byte(len(x.Signature))), x.Signature...), 0)
		return appendValues(b, x.Signature, []any{x.Value})
	case '(', '{':
		x, isList := v.([]any)
		if !isList {
			return nil, errTypes
		}
		return appendValues(b, sig[1:len(sig)-1], x)
	case 'a':
		x, isList := v.([]any)
		if !isList {
			return nil, errTypes
		}
		at := len(b)
		b = pad(order.AppendUint32(b, 0), alignments[sig[1]])
		start := len(b)
		for _, e := range x {
			var err error
			if b, err = appendValue(b, sig[1:], e); err != nil {
				return nil, err
			}
		}
		order.PutUint32(b[at:], uint32(len(b)-start))
	default:
		return nil, errUnknown
	}
	if !ok {
		return nil, fmt.Errorf("%w: %T for %q", errTypes, v, sig)
	}
	return b, nil
}

// reader takes values out of a message. Offsets count from where alignment does.
type reader struct {
	b     []byte
	at    int
	order binary.ByteOrder
}

func (r *reader) align(n int) error {
	for r.at%n != 0 {
		if r.at >= len(r.b) {
			return errShort
		}
		if r.b[r.at] != 0 {
			return errBadBytes
		}
		r.at++
	}
	return nil
}

func (r *reader) take(n int) ([]byte, error) {
	if n < 0 || n > len(r.b)-r.at {
		return nil, errShort
	}
	p := r.b[r.at : r.at+n]
	r.at += n
	return p, nil
}

func (r *reader) number(n int) (uint64, error) {
	if err := r.align(n); err != nil {
		return 0, err
	}
	p, err := r.take(n)
	if err != nil {
		return 0, err
	}
	switch n {
	case 1:
		return uint64(p[0]), nil
	case 2:
		return uint64(r.order.Uint16(p)), nil
	case 4:
		return uint64(r.order.Uint32(p)), nil
	}
	return r.order.Uint64(p), nil
}

// values reads values of the types a signature lists.
func (r *reader) values(sig string, depth int) ([]any, error) {
	var list []any
	for sig != "" {
		first, rest, err := one(sig)
		if err != nil {
			return nil, err
		}
		v, err := r.value(first, depth)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		sig = rest
	}
	return list, nil
}

func (r *reader) value(sig string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errTooDeep
	}
	switch sig[0] {
	case 'y':
		n, err := r.number(1)
		return byte(n), err
	case 'b':
		n, err := r.number(4)
		return n != 0, err
	case 'n', 'q':
		n, err := r.number(2)
		return uint32(n), err
	case 'i':
		n, err := r.number(4)
		return int32(n), err
	case 'u':
		n, err := r.number(4)
		return uint32(n), err
	case 'x', 't', 'd':
		return r.number(8)
	case 's', 'o', 'g':
		size := 4
		if sig[0] == 'g' {
			size = 1
		}
		n, err := r.number(size)
		if err != nil {
			return nil, err
		}
		p, err := r.take(int(n) + 1)
		if err != nil {
			return nil, err
		}
		return string(p[:n]), nil
	case 'v':
		s, err := r.value("g", depth)
		if err != nil {
			return nil, err
		}
		text := s.(string)
		if first, rest, err := one(text); err != nil || rest != "" || first != text {
			return nil, errUnknown
		}
		v, err := r.value(text, depth+1)
		return Variant{text, v}, err
	case '(', '{':
		if len(sig) == 2 {
			return nil, errUnknown // no structure is empty, and an array of such would never end
		}
		if err := r.align(8); err != nil {
			return nil, err
		}
		return r.values(sig[1:len(sig)-1], depth+1)
	case 'a':
		n, err := r.number(4)
		if err != nil {
			return nil, err
		}
		if err := r.align(alignments[sig[1]]); err != nil {
			return nil, err
		}
		end := r.at + int(n)
		if n > maxMessage || end > len(r.b) {
			return nil, errShort
		}
		list := []any{}
		for r.at < end {
			v, err := r.value(sig[1:], depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	return nil, errUnknown
}
