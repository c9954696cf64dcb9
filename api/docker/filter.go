package docker

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// filters are a request's, each name with its values.
type filters map[string][]string

// parseFilters reads the filters parameter, in both forms that clients send: {"k":["v"]} and {"k":{"v":true}}. A name
// that is not among known is refused, as a filter ignored is a wrong answer.
func parseFilters(r *request, known ...string) (filters, error) {
	f := filters{}
	raw := r.text("filters")
	if raw == "" {
		return f, nil
	}
	var sets map[string]json.RawMessage
	if err := json.Unmarshal([]byte(raw), &sets); err != nil {
		return nil, invalid("invalid filters: %v", err)
	}
	for k, v := range sets {
		if !slices.Contains(known, k) {
			return nil, invalid("invalid filter '%s': there are %s", k, strings.Join(known, ", "))
		}
		var list []string
		if json.Unmarshal(v, &list) != nil {
			var set map[string]bool
			if err := json.Unmarshal(v, &set); err != nil {
				return nil, invalid("invalid filters: %v", err)
			}
			for s, on := range set {
				if on {
					list = append(list, s)
				}
			}
			slices.Sort(list)
		}
		f[k] = list
	}
	return f, nil
}

// match says whether any of a filter's values satisfies is; an absent filter always does.
func (f filters) match(name string, is func(string) bool) bool {
	values := f[name]
	return len(values) == 0 || slices.ContainsFunc(values, is)
}

// flag reads a filter that is true or false; set says whether it was given.
func (f filters) flag(name string) (value, set bool, err error) {
	v := f[name]
	if len(v) == 0 {
		return false, false, nil
	}
	b, err := strconv.ParseBool(v[0])
	if err != nil || len(v) > 1 {
		return false, false, invalid("invalid filter '%s=%s'", name, strings.Join(v, ","))
	}
	return b, true, nil
}

// labels says whether all label filters hold for m, and none of label!.
func (f filters) labels(m map[string]string) bool {
	return f.pairs("label", m) && !slices.ContainsFunc(f["label!"], func(want string) bool { return hasPair(m, want) })
}

// pairs says whether m has all that a filter names: a key, or a key and its value.
func (f filters) pairs(name string, m map[string]string) bool {
	return !slices.ContainsFunc(f[name], func(want string) bool { return !hasPair(m, want) })
}

func hasPair(m map[string]string, want string) bool {
	k, v, valued := strings.Cut(want, "=")
	got, ok := m[k]
	return ok && (!valued || got == v)
}

func (f filters) until(now time.Time) (time.Time, error) {
	v := f["until"]
	if len(v) == 0 {
		return time.Time{}, nil
	}
	if len(v) > 1 {
		return time.Time{}, invalid("more than one until filter specified")
	}
	return parseTime(v[0], now)
}

// parseTime reads what clients send as a time: Unix seconds with a fraction, RFC 3339 in its shorter forms too, or
// a duration back from now. "" and "0" are no time.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" || s == "0" {
		return time.Time{}, nil
	}
	sec, frac, _ := strings.Cut(s, ".")
	if n, err := strconv.ParseInt(sec, 10, 64); err == nil {
		var nanos int64
		if frac != "" {
			if len(frac) > 9 {
				frac = frac[:9]
			}
			v, err := strconv.ParseInt(frac, 10, 64)
			if err != nil {
				return time.Time{}, invalid("invalid time %q", s)
			}
			for i := len(frac); i < 9; i++ {
				v *= 10
			}
			nanos = v
		}
		return time.Unix(n, nanos), nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalid("invalid time %q: give Unix seconds, RFC 3339, or a duration such as 10m", s)
}

// globMatch says whether name is meant by a pattern of path.Match; a broken pattern means nothing.
func globMatch(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}

// nameMatches says whether a name filter, a regular expression in Docker, finds a container's name, with or without
// its slash.
func nameMatches(filter, name string) bool {
	if strings.Contains(name, strings.TrimPrefix(filter, "/")) {
		return true
	}
	re, err := regexp.Compile(filter)
	return err == nil && (re.MatchString(name) || re.MatchString("/"+name))
}
