package option

import (
	"fmt"
	"io"
	"strings"
)

// DefaultDetachKeys leave a process without ending it.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// DetachKeys reads a key sequence: characters and ctrl-… names, separated by
// commas.
func DetachKeys(s string) ([]byte, error) {
	if s == "" {
		s = DefaultDetachKeys
	}
	var keys []byte
	for _, k := range strings.Split(s, ",") {
		name, ctrl := strings.CutPrefix(k, "ctrl-")
		switch {
		case len(k) == 1:
			keys = append(keys, k[0])
		case ctrl && len(name) == 1 && name[0] >= 'a' && name[0] <= 'z':
			keys = append(keys, name[0]-'a'+1)
		case ctrl && len(name) == 1 && strings.Contains("@[\\]^_", name):
			keys = append(keys, name[0]-'@')
		default:
			return nil, fmt.Errorf("invalid detach keys (%s): %q is not a character or ctrl-…", s, k)
		}
	}
	return keys, nil
}

// ErrDetached is what a KeyReader returns once the sequence was typed.
var ErrDetached = fmt.Errorf("read escape sequence")

// KeyReader passes input on until a key sequence occurs in it. A beginning of
// the sequence is held back until the next key tells what it is.
type KeyReader struct {
	R    io.Reader
	Keys []byte

	held int    // bytes of Keys that were typed
	out  []byte // ready for the reader
	err  error
}

func (k *KeyReader) Read(p []byte) (int, error) {
	for len(k.out) == 0 {
		if k.err != nil {
			return 0, k.err
		}
		n, err := k.R.Read(p)
		k.err = err
		for _, b := range p[:n] {
			if k.feed(b) {
				k.err = ErrDetached
				break
			}
		}
		if k.err != nil && k.err != ErrDetached {
			k.out = append(k.out, k.Keys[:k.held]...)
			k.held = 0
		}
	}
	n := copy(p, k.out)
	k.out = k.out[n:]
	return n, nil
}

// feed takes one byte and tells whether the sequence is complete.
func (k *KeyReader) feed(b byte) bool {
	if b == k.Keys[k.held] {
		k.held++
		if k.held == len(k.Keys) {
			k.held = 0
			return true
		}
		return false
	}
	k.out = append(k.out, k.Keys[:k.held]...)
	if k.held = 0; b == k.Keys[0] {
		k.held = 1
		return false
	}
	k.out = append(k.out, b)
	return false
}
