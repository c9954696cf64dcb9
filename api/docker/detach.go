package docker

import (
	"io"
	"strings"
)

// defaultDetach is ctrl-p,ctrl-q.
var defaultDetach = []byte{16, 17}

// detachKeys reads a sequence as Docker writes it: ctrl-a to ctrl-z, ctrl-@ [ \ ] ^ _, or single characters, with
// commas between.
func detachKeys(s string) ([]byte, error) {
	if s == "" {
		return defaultDetach, nil
	}
	var keys []byte
	for _, k := range strings.Split(s, ",") {
		if len(k) == 1 {
			keys = append(keys, k[0])
			continue
		}
		c, ok := strings.CutPrefix(k, "ctrl-")
		if !ok || len(c) != 1 {
			return nil, invalid("Invalid detach keys (%s) provided", s)
		}
		switch b := c[0]; {
		case b >= 'a' && b <= 'z':
			keys = append(keys, b-'a'+1)
		case b == '@':
			keys = append(keys, 0)
		case b >= '[' && b <= '_':
			keys = append(keys, b-'['+27)
		default:
			return nil, invalid("Invalid detach keys (%s) provided", s)
		}
	}
	return keys, nil
}

// detacher passes a client's input on and calls leave when the keys come. A key that might begin the sequence is
// held back until the next one tells.
type detacher struct {
	r     io.Reader
	keys  []byte
	seen  int
	left  bool
	leave func()
}

// Read implements io.Reader.
func (d *detacher) Read(p []byte) (int, error) {
	if d.left {
		// Only now: what came before the keys has been passed on.
		d.leave()
		return 0, io.ErrClosedPipe
	}
	if len(d.keys) == 0 {
		return d.r.Read(p)
	}
	room := len(p) - len(d.keys)
	if room < 1 {
		room = 1
	}
	in := make([]byte, min(room, 4096))
	for {
		n, err := d.r.Read(in)
		out := p[:0]
		for _, b := range in[:n] {
			if b == d.keys[d.seen] {
				if d.seen++; d.seen == len(d.keys) {
					d.left = true
					break
				}
				continue
			}
			out = append(out, d.keys[:d.seen]...)
			if d.seen = 0; b == d.keys[0] {
				d.seen = 1
				continue
			}
			out = append(out, b)
		}
		if d.left && len(out) == 0 {
			d.leave()
			return 0, io.ErrClosedPipe
		}
		if len(out) > 0 || err != nil {
			return len(out), err
		}
	}
}
