// Package option reads what users write on the command line: ports, volumes,
// mounts, environment files, filters, sizes. Forms and messages are Docker's.
package option

import (
	"encoding/csv"
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// List is a flag that may be given several times; each value is kept as it is
// (commas mean nothing).
type List struct {
	Values []string
	check  func(string) error
	kind   string
}

// NewList returns a list whose values must pass check (nil for any value).
// kind is the word in the help, "list" when empty.
func NewList(kind string, check func(string) error) *List {
	if kind == "" {
		kind = "list"
	}
	return &List{check: check, kind: kind}
}

// Set adds a value.
func (l *List) Set(s string) error {
	if l.check != nil {
		if err := l.check(s); err != nil {
			return err
		}
	}
	l.Values = append(l.Values, s)
	return nil
}

// String is empty for an empty list, as the help shows defaults.
func (l *List) String() string {
	if len(l.Values) == 0 {
		return ""
	}
	return strings.Join(l.Values, ",")
}

// Type is the word in the help.
func (l *List) Type() string { return l.kind }

// Map returns a list of key=value as a map; a key alone has an empty value.
func Map(values []string) map[string]string {
	m := make(map[string]string, len(values))
	for _, v := range values {
		key, value, _ := strings.Cut(v, "=")
		m[key] = value
	}
	return m
}

// CheckPair refuses what is not key=value.
func CheckPair(s string) error {
	if key, _, ok := strings.Cut(s, "="); !ok || key == "" {
		return fmt.Errorf("bad format for %q: must be key=value", s)
	}
	return nil
}

// Filter adds a filter flag's value (key=value) to a listing's filters.
func Filter(into map[string][]string, s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("invalid filter '%s': must be key=value", s)
	}
	key = strings.ToLower(strings.TrimSpace(key))
	into[key] = append(into[key], strings.TrimSpace(value))
	return nil
}

// Bytes is a size flag: 1024, 64m, 2g. -1 is taken when Unlimited is set.
type Bytes struct {
	Value     int64
	Unlimited bool
}

// Set reads a size.
func (b *Bytes) Set(s string) error {
	if b.Unlimited && s == "-1" {
		b.Value = -1
		return nil
	}
	v, err := units.RAMInBytes(s)
	if err != nil {
		return err
	}
	b.Value = v
	return nil
}

// String is empty for no size.
func (b *Bytes) String() string {
	if b.Value == 0 {
		return ""
	}
	if b.Value == -1 {
		return "-1"
	}
	return units.BytesSize(float64(b.Value))
}

// Type is the word in the help.
func (b *Bytes) Type() string { return "bytes" }

// CPUs is a flag with a number of CPUs; Value is 1e-9 CPUs.
type CPUs struct{ Value int64 }

// Set reads a decimal number with at most nine places.
func (c *CPUs) Set(s string) error {
	whole, frac, _ := strings.Cut(s, ".")
	if len(strings.TrimRight(frac, "0")) > 9 {
		return fmt.Errorf("value is too precise: %s", s)
	}
	frac = (frac + "000000000")[:9]
	if whole == "" {
		whole = "0"
	}
	w, err1 := strconv.ParseUint(whole, 10, 32)
	f, err2 := strconv.ParseUint(frac, 10, 32)
	if err1 != nil || err2 != nil {
		return fmt.Errorf("failed to parse %s as a rational number", s)
	}
	c.Value = int64(w)*1e9 + int64(f)
	return nil
}

// String is empty for no number.
func (c *CPUs) String() string {
	if c.Value == 0 {
		return ""
	}
	s := fmt.Sprintf("%d.%09d", c.Value/1e9, c.Value%1e9)
	return strings.TrimRight(strings.TrimRight(s, "0"), ".")
}

// Type is the word in the help.
func (c *CPUs) Type() string { return "decimal" }

// fields splits a "key=value,key=value" flag as CSV, so that quotes keep
// commas.
func fields(s string) ([]string, error) {
	f, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return nil, fmt.Errorf("%q is not a list of key=value: %w", s, err)
	}
	return f, nil
}

// Time turns what --since and --until take (a date, a Unix time, a duration
// before now) into the API's form: seconds since 1970 with nanoseconds.
func Time(s string, now time.Time) (string, error) {
	if s == "" {
		return "", nil
	}
	if d, err := time.ParseDuration(s); err == nil && s != "0" { // 0 is the beginning of all
		return unixTime(now.Add(-d)), nil
	}
	layouts := []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
		"2006-01-02 15:04:05.999999999", "2006-01-02Z07:00", "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00"}
	for _, l := range layouts {
		if t, err := time.ParseInLocation(l, s, now.Location()); err == nil {
			return unixTime(t), nil
		}
	}
	sec, nano, _ := strings.Cut(s, ".")
	if _, err := strconv.ParseInt(sec, 10, 64); err != nil || strings.Trim(nano, "0123456789") != "" {
		return "", fmt.Errorf("failed to parse value as time or duration: %q", s)
	}
	return s, nil
}

func unixTime(t time.Time) string {
	return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond())
}

// SortedKeys returns a map's keys in order.
func SortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Address refuses what is no IP address.
func Address(s string) error {
	if _, err := netip.ParseAddr(strings.TrimSpace(s)); err != nil {
		return fmt.Errorf("IP address is not correctly formatted: %s", s)
	}
	return nil
}
