// Package stdio moves the input and output of supervised processes: between a
// process's pipes or terminal and log files, fifos and attached clients. Its
// client half (Dial) is what an attach of the engine uses.
package stdio

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
)

// URI is a stdio target our shim understands beside fifos and file:// URIs.
// String gives it its text form:
// cale:///?log=PATH&driver=json-file&attach=PATH&…
type URI struct {
	// Log is the path of the log file; "" or Driver "none" for no log.
	Log string
	// Driver is json-file, cri or none ("" is json-file when Log is set).
	Driver string
	// MaxSize in bytes rotates the log (0: never); MaxFile is how many files to
	// keep, the current one included (at least 1).
	MaxSize int64
	MaxFile int
	// Attach is the path of the Unix socket that serves attach.
	Attach string
	// Stdin keeps an input open for attached clients; StdinOnce closes it when
	// the first client that sent input goes away.
	Stdin, StdinOnce bool
	// Attrs are written with every line of a json-file log (Docker's "details").
	Attrs map[string]string
	// Journal is the socket of systemd's journal, which gets the log too; "" is
	// none. Fields go with each of its entries.
	Journal string
	Fields  map[string]string
}

const scheme = "cale"

// attrPrefix marks the query parameters that are attributes.
const attrPrefix = "attr."

// fieldPrefix marks those that are fields of the journal's.
const fieldPrefix = "field."

// String returns the URI's text.
func (u URI) String() string {
	q := make(url.Values)
	set := func(k, v string) {
		if v != "" {
			q.Set(k, v)
		}
	}
	set("log", u.Log)
	set("driver", u.Driver)
	set("attach", u.Attach)
	if u.MaxSize > 0 {
		set("max-size", strconv.FormatInt(u.MaxSize, 10))
	}
	if u.MaxFile > 0 {
		set("max-file", strconv.Itoa(u.MaxFile))
	}
	if u.Stdin {
		set("stdin", "1")
	}
	if u.StdinOnce {
		set("stdinonce", "1")
	}
	for k, v := range u.Attrs {
		q.Set(attrPrefix+k, v)
	}
	set("journal", u.Journal)
	for k, v := range u.Fields {
		q.Set(fieldPrefix+k, v)
	}
	return scheme + ":///?" + q.Encode()
}

// IsURI tells whether s is a URI of ours.
func IsURI(s string) bool { return strings.HasPrefix(s, scheme+"://") }

// ParseURI parses the text that String made. Unknown parameters are refused:
// an older shim must not silently do less than it was asked.
func ParseURI(s string) (URI, error) {
	var u URI
	p, err := url.Parse(s)
	if err != nil {
		return u, errors.New("stdio URI: malformed")
	}
	if p.Scheme != scheme || p.Host != "" || (p.Path != "" && p.Path != "/") {
		return u, errors.New("stdio URI: want cale:///?…")
	}
	q, err := url.ParseQuery(p.RawQuery)
	if err != nil {
		return u, errors.New("stdio URI: malformed query")
	}
	for k, vs := range q {
		v := vs[len(vs)-1]
		var err error
		switch k {
		case "log":
			u.Log = v
		case "driver":
			u.Driver = v
		case "attach":
			u.Attach = v
		case "max-size":
			u.MaxSize, err = strconv.ParseInt(v, 10, 64)
		case "max-file":
			u.MaxFile, err = strconv.Atoi(v)
		case "stdin":
			u.Stdin, err = strconv.ParseBool(v)
		case "stdinonce":
			u.StdinOnce, err = strconv.ParseBool(v)
		case "journal":
			u.Journal = v
		default:
			if name, ok := strings.CutPrefix(k, fieldPrefix); ok {
				if u.Fields == nil {
					u.Fields = make(map[string]string)
				}
				u.Fields[name] = v
				continue
			}
			name, ok := strings.CutPrefix(k, attrPrefix)
			if !ok {
				return u, errors.New("stdio URI: unknown parameter " + strconv.Quote(k))
			}
			if u.Attrs == nil {
				u.Attrs = make(map[string]string)
			}
			u.Attrs[name] = v
		}
		if err != nil || u.MaxSize < 0 || u.MaxFile < 0 {
			return u, errors.New("stdio URI: bad value of " + k + ": " + strconv.Quote(v))
		}
	}
	switch u.Driver {
	case "":
		if u.Log != "" {
			u.Driver = "json-file"
		}
	case "json-file", "cri":
		if u.Log == "" {
			return u, errors.New("stdio URI: the driver " + u.Driver + " needs a log path")
		}
	case "none":
		u.Log = ""
	default:
		return u, errors.New("stdio URI: unknown log driver " + strconv.Quote(u.Driver))
	}
	return u, nil
}
