package logfile

import (
	"maps"
	"slices"
	"time"
	"unicode/utf8"
)

const timeLayout = time.RFC3339Nano

// appendJSON appends one entry in Docker's json-file format. attrs is a JSON
// object or empty. Bytes that are not UTF-8 become U+FFFD: JSON can't hold them.
func appendJSON(b []byte, s Stream, line []byte, attrs string, at time.Time) []byte {
	b = append(b, `{"log":`...)
	b = appendString(b, line)
	b = append(b, `,"stream":"`...)
	b = append(b, s.String()...)
	b = append(b, '"')
	if attrs != "" {
		b = append(b, `,"attrs":`...)
		b = append(b, attrs...)
	}
	b = append(b, `,"time":"`...)
	b = at.UTC().AppendFormat(b, timeLayout)
	return append(b, "\"}\n"...)
}

// criTimeLayout always has nine digits, as the kubelet's own layout does.
const criTimeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// appendCRI appends one entry in the kubelet's format. A line's newline becomes
// the entry's; without one the entry is partial.
func appendCRI(b []byte, s Stream, line []byte, at time.Time) []byte {
	tag := " P "
	if n := len(line); n > 0 && line[n-1] == '\n' {
		tag, line = " F ", line[:n-1]
	}
	b = at.AppendFormat(b, criTimeLayout)
	b = append(b, ' ')
	b = append(b, s.String()...)
	b = append(b, tag...)
	b = append(b, line...)
	return append(b, '\n')
}

const hex = "0123456789abcdef"

// appendString appends p as a JSON string, escaped as Docker and encoding/json do.
func appendString(b []byte, p []byte) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(p); {
		c := p[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' {
				i++
				continue
			}
			b = append(b, p[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRune(p[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(b, p[start:i]...)
			b = append(b, `\ufffd`...)
			start = i + n
		case r == '\u2028' || r == '\u2029':
			b = append(b, p[start:i]...)
			b = append(b, `\u202`...)
			b = append(b, hex[r&15])
			start = i + n
		}
		i += n
	}
	b = append(b, p[start:]...)
	return append(b, '"')
}

// encodeAttrs makes the JSON object of attrs, "" for none.
func encodeAttrs(attrs map[string]string) string {
	if len(attrs) == 0 {
		return ""
	}
	b := []byte{'{'}
	for i, k := range slices.Sorted(maps.Keys(attrs)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, []byte(k))
		b = append(b, ':')
		b = appendString(b, []byte(attrs[k]))
	}
	return string(append(b, '}'))
}
