package hosts

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// reader reads one registry's folder and sums up what it read.
type reader struct {
	dir string
	sum hash.Hash
}

// file reads a file named absolutely or from the folder.
func (r *reader) file(name string) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(r.dir, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	fmt.Fprintf(r.sum, "%s %d\n", name, len(raw))
	r.sum.Write(raw)
	return raw, nil
}

func (r *reader) authority(h *Host, name string) error {
	raw, err := r.file(name)
	if err != nil {
		return err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(raw) {
		return fmt.Errorf("%s holds no certificate", name)
	}
	h.Authorities = append(append(h.Authorities, raw...), '\n')
	return nil
}

func (r *reader) pair(h *Host, cert, key string) error {
	c, err := r.file(cert)
	if err != nil {
		return err
	}
	k := c
	if key != "" {
		if k, err = r.file(key); err != nil {
			return err
		}
	}
	pair, err := tls.X509KeyPair(c, k)
	if err != nil {
		return fmt.Errorf("%s: %w", cert, err)
	}
	h.Certificates = append(h.Certificates, pair)
	return nil
}

// settings is what a host's table, and the file itself for the server, holds.
type settings struct {
	Capabilities []string          `toml:"capabilities"`
	CA           any               `toml:"ca"`     // path, or list of paths
	Client       any               `toml:"client"` // path, list of paths, or list of pairs
	SkipVerify   bool              `toml:"skip_verify"`
	Header       map[string]any    `toml:"header"` // text, or list of texts
	OverridePath bool              `toml:"override_path"`
	DialTimeout  string            `toml:"dial_timeout"`
	Proxy        string            `toml:"proxy"`
	Rewrite      map[string]string `toml:"rewrite"` // an extension that K3s has too
}

type document struct {
	settings
	Server string              `toml:"server"`
	Host   map[string]settings `toml:"host"`
}

// parse reads a hosts.toml. What it does not know it refuses: a misspelt word
// would silently mean other than what was meant.
func (r *reader) parse(raw []byte) ([]Host, error) {
	var d document
	if err := decode(raw, &d); err != nil {
		return nil, err
	}
	tables, err := order(raw)
	if err != nil {
		return nil, err
	}
	var list []Host
	for _, name := range tables["host"] {
		h, err := r.host(name, d.Host[name], tables["host\x00"+name])
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", name, err)
		}
		list = append(list, h)
	}
	h, err := r.host(d.Server, d.settings, tables["rewrite"])
	if err != nil {
		return nil, err
	}
	h.Server = true
	return append(list, h), nil
}

func decode(raw []byte, into any) error {
	err := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields().Decode(into)
	var at *toml.DecodeError
	var unknown *toml.StrictMissingError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		line, _ := unknown.Errors[0].Position()
		return fmt.Errorf("line %d: unknown key %q", line, strings.Join(unknown.Errors[0].Key(), "."))
	case errors.As(err, &at):
		line, _ := at.Position()
		return fmt.Errorf("line %d: %s", line, strings.TrimPrefix(at.Error(), "toml: "))
	}
	return err
}

// order lists, in the order of the text, which a map has lost: "host" has the
// names of the hosts, "host\x00NAME" the patterns of its rewrites, "rewrite"
// those of the server.
func order(raw []byte) (map[string][]string, error) {
	out := map[string][]string{}
	add := func(table, key string) {
		if !slices.Contains(out[table], key) {
			out[table] = append(out[table], key)
		}
	}
	var p unstable.Parser
	p.Reset(raw)
	var under []string
	for p.NextExpression() {
		e := p.Expression()
		var keys []string
		if e.Kind == unstable.KeyValue {
			keys = slices.Clone(under)
		}
		for it := e.Key(); it.Next(); {
			keys = append(keys, string(it.Node().Data))
		}
		if e.Kind == unstable.Table {
			under = keys
		}
		if len(keys) >= 2 && keys[0] == "rewrite" {
			add("rewrite", keys[1])
		}
		if len(keys) >= 2 && keys[0] == "host" {
			add("host", keys[1])
		}
		if len(keys) >= 4 && keys[0] == "host" && keys[2] == "rewrite" {
			add("host\x00"+keys[1], keys[3])
		}
	}
	return out, p.Error()
}

// host makes a Host of one table. rewrites are its patterns in order.
func (r *reader) host(name string, s settings, rewrites []string) (h Host, err error) {
	if name != "" {
		if h.URL, err = address(name, s.OverridePath); err != nil {
			return h, err
		}
	}
	h.SkipVerify = s.SkipVerify
	if len(s.Capabilities) == 0 {
		h.Pull, h.Resolve, h.Push = true, true, true
	}
	for _, c := range s.Capabilities {
		switch strings.ToLower(c) {
		case "pull":
			h.Pull = true
		case "resolve":
			h.Resolve = true
		case "push":
			h.Push = true
		default:
			return h, fmt.Errorf("unknown capability %q: there are pull, resolve and push", c)
		}
	}
	authorities, err := texts("ca", s.CA)
	if err != nil {
		return h, err
	}
	for _, f := range authorities {
		if err := r.authority(&h, f); err != nil {
			return h, fmt.Errorf("ca: %w", err)
		}
	}
	if err := r.client(&h, s.Client); err != nil {
		return h, fmt.Errorf("client: %w", err)
	}
	for k, v := range s.Header {
		list, err := texts("header "+k, v)
		if err != nil {
			return h, err
		}
		if h.Header == nil {
			h.Header = http.Header{}
		}
		for _, v := range list {
			h.Header.Add(k, v)
		}
	}
	if s.DialTimeout != "" {
		if h.DialTimeout, err = time.ParseDuration(s.DialTimeout); err != nil || h.DialTimeout < 0 {
			return h, fmt.Errorf("dial_timeout %q is no duration such as \"5s\"", s.DialTimeout)
		}
	}
	if s.Proxy != "" {
		u, err := url.Parse(s.Proxy)
		if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
			return h, fmt.Errorf("proxy %q is no address such as \"http://proxy:3128\"", s.Proxy)
		}
		h.Proxy = u
	}
	for _, p := range rewrites {
		re, err := regexp.Compile(p)
		if err != nil {
			return h, fmt.Errorf("rewrite: %w", err)
		}
		h.Rewrites = append(h.Rewrites, Rewrite{re, s.Rewrite[p]})
	}
	return h, nil
}

// client reads the certificates to show.
func (r *reader) client(h *Host, v any) error {
	list, isList := v.([]any)
	if !isList {
		one, err := texts("it", v)
		if err != nil || one == nil {
			return err
		}
		return r.pair(h, one[0], "")
	}
	for _, v := range list {
		pair, err := texts("an entry", v)
		if err != nil {
			return err
		}
		if _, isPair := v.([]any); isPair != (len(pair) == 2) {
			return errors.New("an entry is a path, or a certificate's path and its key's")
		}
		if err := r.pair(h, pair[0], strings.Join(pair[1:], "")); err != nil {
			return err
		}
	}
	return nil
}

// texts reads one text or a list of texts.
func texts(what string, v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		out := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("%s is neither a text nor a list of texts", what)
			}
			out[i] = s
		}
		return out, nil
	}
	return nil, fmt.Errorf("%s is neither a text nor a list of texts", what)
}

// address reads a host's URL; without a scheme it has TLS.
func address(s string, override bool) (url.URL, error) {
	if !strings.HasPrefix(s, "http://") && !strings.HasPrefix(s, "https://") {
		if strings.Contains(s, "://") {
			return url.URL{}, fmt.Errorf("%q: only http and https can be spoken", s)
		}
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return url.URL{}, fmt.Errorf("%q is no address such as \"https://mirror.example.com\"", s)
	}
	if u.User != nil {
		return url.URL{}, fmt.Errorf("%q: no password belongs here: log in to %s", u.Redacted(), u.Host)
	}
	p := strings.TrimSuffix(path.Clean("/"+u.Path), "/")
	if !override && !strings.HasSuffix(p, "/v2") {
		p += "/v2"
	}
	return url.URL{Scheme: u.Scheme, Host: u.Host, Path: p}, nil
}
