// Package hosts reads where a registry's content is to be fetched and how: the
// folders "certs.d" of containerd (hosts.toml: mirrors, certificates, headers,
// https://github.com/containerd/containerd/blob/main/docs/hosts.md) and of
// Docker and Podman (certificates alone).
package hosts

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// maxFile bounds a file of settings or certificates, in bytes.
const maxFile = 4 << 20

// Host is one place that has a registry's content.
type Host struct {
	// URL is scheme, host and the path that the API's calls are below ("/v2").
	// Its Host is empty for the registry that the domain itself names.
	URL url.URL
	// Server says that this is the domain's own registry and no mirror of it.
	Server bool
	// Pull, Resolve and Push are what the host is trusted with: to serve
	// content by digest, to say what a tag stands for, to take content in.
	Pull, Resolve, Push bool

	Authorities  []byte // PEM certificates to trust beside the system's
	Certificates []tls.Certificate
	SkipVerify   bool
	Header       http.Header
	DialTimeout  time.Duration // 0 for the usual
	Proxy        *url.URL      // nil for the environment's
	Rewrites     []Rewrite
}

// Rewrite changes the repositories that a host has under another name; the
// first whose pattern matches counts.
type Rewrite struct {
	Pattern *regexp.Regexp
	To      string // as of regexp.Expand: $1 is the first group
}

// TLS tells whether anything was set that only makes sense with TLS.
func (h *Host) TLS() bool {
	return len(h.Authorities) > 0 || len(h.Certificates) > 0 || h.SkipVerify
}

// Path is the repository's name at this host.
func (h *Host) Path(repository string) string {
	for _, r := range h.Rewrites {
		if r.Pattern.MatchString(repository) {
			return r.Pattern.ReplaceAllString(repository, r.To)
		}
	}
	return repository
}

// Config is what was set for one registry.
type Config struct {
	Hosts []Host // in the order to ask them; the server is the last
	// Sum is of all that was read: a Config with the same is the same.
	Sum [sha256.Size]byte
}

// Dirs are folders that hold one folder for each registry, the more important
// first.
type Dirs []string

// System are the places of the other container tools.
var System = Dirs{"/etc/containerd/certs.d", "/etc/docker/certs.d", "/etc/containers/certs.d"}

// Load reads what is set for a registry ("docker.io", "127.0.0.1:5000"): the
// first folder of its name that is there ("host_5000_" or "host:5000"), else
// the first "_default". It is nil if there is none. Settings that can't be read
// are an error, never passed over: they may be what keeps a name from the
// public registry.
func (d Dirs) Load(domain string) (*Config, error) {
	dir, err := d.find(domain)
	if dir == "" || err != nil {
		return nil, err
	}
	r := reader{dir: dir, sum: sha256.New()}
	raw, err := r.file("hosts.toml")
	var list []Host
	switch {
	case err == nil:
		list, err = r.parse(raw)
		if err != nil {
			err = fmt.Errorf("%s: %w", filepath.Join(dir, "hosts.toml"), err)
		}
	case errors.Is(err, os.ErrNotExist):
		list, err = r.certs()
	}
	if err != nil {
		return nil, fmt.Errorf("settings of registry %s: %w", domain, err)
	}
	c := &Config{Hosts: list}
	r.sum.Sum(c.Sum[:0])
	return c, nil
}

// find is the folder to read, or "".
func (d Dirs) find(domain string) (string, error) {
	if domain == "" || strings.ContainsAny(domain, "/\x00") || domain[0] == '.' || domain[0] == '_' {
		return "", nil
	}
	names := []string{domain}
	if i := strings.LastIndexByte(domain, ':'); i > 0 {
		names = []string{domain[:i] + "_" + domain[i+1:] + "_", domain}
	}
	for _, names := range [][]string{names, {"_default"}} {
		for _, root := range d {
			for _, name := range names {
				dir := filepath.Join(root, name)
				info, err := os.Stat(dir)
				switch {
				case err == nil && info.IsDir():
					return dir, nil
				case err != nil && !errors.Is(err, os.ErrNotExist):
					return "", fmt.Errorf("settings of registry %s: %w", domain, err)
				}
			}
		}
	}
	return "", nil
}

// certs reads Docker's pattern: *.crt are authorities, NAME.cert with NAME.key
// is what to show. Other files are no business of ours.
func (r *reader) certs() ([]Host, error) {
	h := Host{Server: true, Pull: true, Resolve: true, Push: true}
	list, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		switch name := e.Name(); filepath.Ext(name) {
		case ".crt":
			if err := r.authority(&h, name); err != nil {
				return nil, err
			}
		case ".cert":
			if err := r.pair(&h, name, strings.TrimSuffix(name, ".cert")+".key"); err != nil {
				return nil, err
			}
		case ".key":
			cert := strings.TrimSuffix(name, ".key") + ".cert"
			if !slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.Name() == cert }) {
				return nil, fmt.Errorf("%s has no %s", filepath.Join(r.dir, name), cert)
			}
		}
	}
	return []Host{h}, nil
}
