package logfile

import (
	"bytes"
	"encoding/json"
	"time"
)

// decode parses one record (without its newline) into e. The line is appended
// to scratch when it has to be unescaped; the possibly grown scratch is returned.
// ok is false for a damaged record, which readers skip.
func decode(format Format, rec, scratch []byte, e *Entry) (_ []byte, ok bool) {
	e.Attrs = nil
	if format == CRI {
		return decodeCRI(rec, scratch, e)
	}
	if out, ok := decodeFast(rec, scratch, e); ok {
		return out, true
	}
	var r struct {
		Log    string            `json:"log"`
		Stream string            `json:"stream"`
		Time   time.Time         `json:"time"`
		Attrs  map[string]string `json:"attrs"`
	}
	if err := json.Unmarshal(rec, &r); err != nil {
		return scratch, false
	}
	e.Time, e.Stream, e.Attrs = r.Time, streamOf(r.Stream), r.Attrs
	scratch = append(scratch[:0], r.Log...)
	e.Line = scratch
	return scratch, true
}

func streamOf(s string) Stream {
	if s == "stderr" {
		return Stderr
	}
	return Stdout
}

// decodeFast reads records of exactly the shape appendJSON writes without
// attributes, with simple escapes only.
func decodeFast(rec, scratch []byte, e *Entry) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(rec, []byte(`{"log":"`))
	if !ok {
		return scratch, false
	}
	out := scratch[:0]
	for {
		i := bytes.IndexAny(rest, `"\`)
		if i < 0 {
			return scratch, false
		}
		out = append(out, rest[:i]...)
		if rest[i] == '"' {
			rest = rest[i+1:]
			break
		}
		if i+1 >= len(rest) {
			return scratch, false
		}
		switch rest[i+1] {
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case '"', '\\', '/':
			out = append(out, rest[i+1])
		case 'u':
			c, ok := asciiEscape(rest[i+2:])
			if !ok {
				return scratch, false
			}
			out = append(out, c)
			i += 4
		default:
			return scratch, false
		}
		rest = rest[i+2:]
	}
	stream := Stdout
	if after, ok := bytes.CutPrefix(rest, []byte(`,"stream":"stdout","time":"`)); ok {
		rest = after
	} else if after, ok := bytes.CutPrefix(rest, []byte(`,"stream":"stderr","time":"`)); ok {
		rest, stream = after, Stderr
	} else {
		return scratch, false
	}
	stamp, ok := bytes.CutSuffix(rest, []byte(`"}`))
	if !ok {
		return scratch, false
	}
	t, err := time.Parse(timeLayout, string(stamp))
	if err != nil {
		return scratch, false
	}
	e.Time, e.Stream, e.Line = t, stream, out
	return out, true
}

// asciiEscape reads the four digits of a \u escape below 0x80.
func asciiEscape(p []byte) (byte, bool) {
	if len(p) < 4 || p[0] != '0' || p[1] != '0' {
		return 0, false
	}
	hi, lo := bytes.IndexByte([]byte(hex), p[2]|0x20), bytes.IndexByte([]byte(hex), p[3]|0x20)
	if p[2] < '0' || p[2] > '7' || lo < 0 || hi < 0 || p[3] < '0' {
		return 0, false
	}
	return byte(hi<<4 | lo), true
}

func decodeCRI(rec, scratch []byte, e *Entry) ([]byte, bool) {
	stamp, rest, ok := bytes.Cut(rec, []byte{' '})
	if !ok {
		return scratch, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok || (string(stream) != "stdout" && string(stream) != "stderr") {
		return scratch, false
	}
	tags, line, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		// An empty line may have lost its last blank.
		tags, line = rest, nil
	}
	t, err := time.Parse(timeLayout, string(stamp))
	if err != nil {
		return scratch, false
	}
	// Further tags may follow after colons.
	tag, _, _ := bytes.Cut(tags, []byte{':'})
	scratch = append(scratch[:0], line...)
	switch string(tag) {
	case "F":
		scratch = append(scratch, '\n')
	case "P":
	default:
		return scratch, false
	}
	e.Time, e.Stream, e.Line = t, streamOf(string(stream)), scratch
	return scratch, true
}
