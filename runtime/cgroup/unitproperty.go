package cgroup

import (
	"fmt"
	"strconv"
	"strings"

	"cale/runtime/dbus"
)

// propertyPrefix starts annotations that set properties of a container's unit, as runc and crun have it.
const propertyPrefix = "org.systemd.property."

// annotated are the unit's properties that annotations set.
func annotated(annotations map[string]string) ([]any, error) {
	var props []any
	for key, text := range annotations {
		name, ok := strings.CutPrefix(key, propertyPrefix)
		if !ok {
			continue
		}
		v, err := parseVariant(text)
		if err == nil && (len(name) < 3 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "") {
			err = fmt.Errorf("%q is no name of a property", name)
		}
		if err != nil {
			return nil, fmt.Errorf("annotation %s=%s: %w", key, text, err)
		}
		// What unit files have in seconds, the bus has in microseconds.
		if base, ok := strings.CutSuffix(name, "Sec"); ok && !strings.HasSuffix(name, "USec") {
			n, err := strconv.ParseFloat(fmt.Sprint(v.Value), 64)
			if err != nil || n < 0 || n > 1e12 {
				return nil, fmt.Errorf("annotation %s=%s: not a time in seconds", key, text)
			}
			name, v = base+"USec", dbus.Variant{Signature: "t", Value: uint64(n * 1e6)}
		}
		props = append(props, []any{name, v})
	}
	return props, nil
}

// parseVariant reads the part of GVariant's text format that units' properties need: strings, booleans, numbers with a
// type before them (int32 without), and arrays of strings.
func parseVariant(text string) (dbus.Variant, error) {
	text = strings.TrimSpace(text)
	kind, number, typed := strings.Cut(text, " ")
	switch {
	case text == "true" || text == "false":
		return dbus.Variant{Signature: "b", Value: text == "true"}, nil
	case strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]"):
		list := []any{}
		for item := range strings.SplitSeq(text[1:len(text)-1], ",") {
			s, ok := unquoteVariant(strings.TrimSpace(item))
			if !ok {
				return dbus.Variant{}, fmt.Errorf("only strings may be in an array")
			}
			list = append(list, s)
		}
		return dbus.Variant{Signature: "as", Value: list}, nil
	case typed && kind == "uint64":
		n, err := strconv.ParseUint(strings.TrimSpace(number), 0, 64)
		return dbus.Variant{Signature: "t", Value: n}, err
	case typed && kind == "uint32":
		n, err := strconv.ParseUint(strings.TrimSpace(number), 0, 32)
		return dbus.Variant{Signature: "u", Value: uint32(n)}, err
	case typed && kind == "int32":
		text = strings.TrimSpace(number)
	}
	if s, ok := unquoteVariant(text); ok {
		return dbus.Variant{Signature: "s", Value: s}, nil
	}
	n, err := strconv.ParseInt(text, 0, 32)
	if err != nil {
		return dbus.Variant{}, fmt.Errorf("not a value that is understood: a string in quotes, a number, true or false")
	}
	return dbus.Variant{Signature: "i", Value: int32(n)}, nil
}

func unquoteVariant(s string) (string, bool) {
	if len(s) < 2 || s[0] != '\'' && s[0] != '"' || s[len(s)-1] != s[0] || strings.ContainsAny(s[1:len(s)-1], `\`+s[:1]) {
		return "", false
	}
	return s[1 : len(s)-1], true
}
