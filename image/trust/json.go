package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// object reads a JSON object of which every key is known: a policy that is
// understood in part protects in part, and a key that is there twice means
// different things to different readers. Keys count as they are spelled, which
// encoding/json does not hold to.
func object(raw []byte, known ...string) (map[string]json.RawMessage, error) {
	return fields(raw, func(key string) bool { return slices.Contains(known, key) })
}

func fields(raw []byte, known func(string) bool) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	t, err := d.Token()
	if err != nil {
		return nil, syntax(err)
	}
	if t != json.Delim('{') {
		return nil, errors.New("it is no JSON object")
	}
	out := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, syntax(err)
		}
		key, _ := t.(string)
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, syntax(err)
		}
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("key %q is there twice", clip(key))
		}
		if !known(key) {
			return nil, fmt.Errorf("unknown key %q", clip(key))
		}
		out[key] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, syntax(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	return out, nil
}

func syntax(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("it is not valid JSON: %w", err)
}

// text reads a field that must be a string; "" if it is not there.
func text(o map[string]json.RawMessage, key string) (string, error) {
	raw, ok := o[key]
	if !ok {
		return "", nil
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil || *s == "" {
		return "", fmt.Errorf("%s is no text", key)
	}
	return *s, nil
}

// texts reads a field that must be a list of strings, not an empty one.
func texts(o map[string]json.RawMessage, key string) ([]string, error) {
	raw, ok := o[key]
	if !ok {
		return nil, nil
	}
	var list []*string
	if err := json.Unmarshal(raw, &list); err != nil || len(list) == 0 {
		return nil, fmt.Errorf("%s is no list of texts", key)
	}
	out := make([]string, len(list))
	for i, s := range list {
		if s == nil || *s == "" {
			return nil, fmt.Errorf("%s is no list of texts", key)
		}
		out[i] = *s
	}
	return out, nil
}

// clip makes foreign text fit for one line of a message.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}
