package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// reader reads JSON without reflection. Package json prepares, for each struct it meets, all that the struct could
// hold; for a configuration, which is read once by a program that lives for milliseconds, that takes longer than
// the start of a container. The first error stays, and everything after it is a no-op.
type reader struct {
	text  string
	i     int
	depth int
	err   error
}

// newReader reads raw without copying it: strings without escapes are parts of it.
func newReader(raw []byte) *reader {
	return &reader{text: unsafe.String(unsafe.SliceData(raw), len(raw))}
}

// maxDepth bounds nesting: it is the stack's.
const maxDepth = 200

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("JSON at byte %d: %w", r.i, fmt.Errorf(format, args...))
	}
}

// peek is the next byte that isn't space, or 0 at the end or after an error.
func (r *reader) peek() byte {
	for r.err == nil && r.i < len(r.text) {
		switch c := r.text[r.i]; c {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return c
		}
	}
	return 0
}

// take takes a byte that must come next.
func (r *reader) take(c byte) bool {
	if r.peek() != c {
		r.fail("%q expected", c)
		return false
	}
	r.i++
	return true
}

// word takes a literal if it comes next.
func (r *reader) word(w string) bool {
	if r.peek() != w[0] || !strings.HasPrefix(r.text[r.i:], w) {
		return false
	}
	r.i += len(w)
	return true
}

// null takes a null if it comes next.
func (r *reader) null() bool { return r.word("null") }

// object calls f with each key; f takes the value.
func (r *reader) object(f func(key string)) {
	if r.null() || !r.open('{') {
		return
	}
	for first := true; r.err == nil; first = false {
		if r.peek() == '}' && first {
			break
		}
		key := r.str()
		if !r.take(':') {
			return
		}
		f(key)
		if r.peek() != ',' {
			break
		}
		r.i++
		if r.peek() != '"' {
			r.fail("key expected")
		}
	}
	r.close('}')
}

// array calls f for each element; f takes it.
func (r *reader) array(f func()) {
	if r.null() || !r.open('[') {
		return
	}
	for first := true; r.err == nil; first = false {
		if r.peek() == ']' && first {
			break
		}
		f()
		if r.peek() != ',' {
			break
		}
		r.i++
	}
	r.close(']')
}

func (r *reader) open(c byte) bool {
	if r.depth++; r.depth > maxDepth {
		r.fail("nested too deeply")
	}
	return r.take(c)
}

func (r *reader) close(c byte) {
	r.depth--
	r.take(c)
}

// str takes a string.
func (r *reader) str() string {
	if r.null() || !r.take('"') {
		return ""
	}
	start := r.i
	plain := true
	for ; r.i < len(r.text); r.i++ {
		switch c := r.text[r.i]; {
		case c == '"':
			r.i++
			s := r.text[start : r.i-1]
			if plain && utf8.ValidString(s) {
				return s
			}
			// Escapes are rare enough to leave them to package json.
			var out string
			if err := json.Unmarshal([]byte(r.text[start-1:r.i]), &out); err != nil {
				r.fail("%w", err)
			}
			return out
		case c == '\\':
			plain = false
			r.i++
		case c < ' ':
			r.fail("control character in a string")
			return ""
		}
	}
	r.fail("string without an end")
	return ""
}

func (r *reader) boolean() bool {
	switch {
	case r.word("true"):
		return true
	case r.word("false"), r.null():
	default:
		r.fail("true or false expected")
	}
	return false
}

// number takes the text of a number; "" is a null.
func (r *reader) number() string {
	if r.null() {
		return ""
	}
	r.peek()
	start := r.i
	for r.i < len(r.text) && strings.IndexByte("+-.eE0123456789", r.text[r.i]) >= 0 {
		r.i++
	}
	if r.i == start {
		r.fail("number expected")
	}
	return r.text[start:r.i]
}

func (r *reader) int(bits int) int64 {
	s := r.number()
	if s == "" || r.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, bits)
	if err != nil || s[0] == '+' {
		r.fail("%q is no %d bit integer", s, bits)
	}
	return n
}

func (r *reader) uint(bits int) uint64 {
	s := r.number()
	if s == "" || r.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		r.fail("%q is no unsigned %d bit integer", s, bits)
	}
	return n
}

func (r *reader) uint32() uint32 { return uint32(r.uint(32)) }

// skip takes any value and returns its text.
func (r *reader) skip() string {
	c := r.peek()
	start := r.i
	switch c {
	case '{':
		r.object(func(string) { r.skip() })
	case '[':
		r.array(func() { r.skip() })
	case '"':
		r.str()
	case 't', 'f', 'n':
		r.boolean()
	default:
		r.number()
	}
	return r.text[start:r.i]
}

// rare takes a value that few configurations have, by package json.
func (r *reader) rare(v any) {
	if raw := r.skip(); r.err == nil {
		if err := json.Unmarshal([]byte(raw), v); err != nil {
			r.fail("%w", err)
		}
	}
}

// end checks that nothing comes any more.
func (r *reader) end() error {
	if r.err == nil && r.peek() != 0 {
		r.fail("text after the end")
	}
	if errors.Is(r.err, nil) {
		return nil
	}
	return r.err
}

// list takes an array of what f takes.
func list[T any](r *reader, f func() T) []T {
	if r.null() {
		return nil
	}
	l := []T{}
	r.array(func() { l = append(l, f()) })
	return l
}

// strs takes an array of strings.
func (r *reader) strs() []string {
	if r.null() {
		return nil
	}
	end := max(strings.IndexByte(r.text[r.i:], ']'), 0)
	l := make([]string, 0, strings.Count(r.text[r.i:r.i+end], ",")+1) // a guess
	r.array(func() { l = append(l, r.str()) })
	return l
}

// stringMap takes an object of strings.
func (r *reader) stringMap() map[string]string {
	if r.null() {
		return nil
	}
	m := map[string]string{}
	r.object(func(k string) { m[k] = r.str() })
	return m
}

// pointer takes a value that may be null.
func pointer[T any](r *reader, f func() T) *T {
	if r.null() {
		return nil
	}
	v := f()
	return &v
}

// Value is what a key of an object stands for, to be taken by exactly one of its methods. A null is the zero value.
type Value struct{ r *reader }

func (v Value) Str() string    { return v.r.str() }
func (v Value) Strs() []string { return v.r.strs() }
func (v Value) Bool() bool     { return v.r.boolean() }
func (v Value) Int() int       { return int(v.r.int(strconv.IntSize)) }
func (v Value) Uint() uint64   { return v.r.uint(64) }
func (v Value) Skip()          { v.r.skip() }

// Rare takes a value that few objects have, as package json does.
func (v Value) Rare(into any) { v.r.rare(into) }

// Members calls f with the members of an object. Like Parse it reads without reflection, and its strings are parts of
// raw, which must not be changed any more.
func Members(raw []byte, f func(key string, v Value)) error {
	r := newReader(raw)
	r.object(func(key string) { f(key, Value{r}) })
	return r.end()
}
