package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"cale/image"
	"cale/image/shortname"
	"cale/registry/client"
	"cale/registry/hosts"
)

// What an administrator sets in files below Config.ConfigDir is read when it is needed, so that a change counts at
// once. A file that can't be understood stops what needed it.

// settingsFile reads a file of ConfigDir; nil if there is none.
func (e *Engine) settingsFile(name string) (path string, raw []byte, err error) {
	if e.cfg.ConfigDir == "" {
		return "", nil, nil
	}
	path = filepath.Join(e.cfg.ConfigDir, name)
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return path, nil, nil
	}
	if err == nil && st.Size() > maxSettings {
		err = fmt.Errorf("%s: larger than 1 MiB", path)
	}
	if err == nil {
		raw, err = os.ReadFile(path)
	}
	return path, raw, err
}

// maxSettings bounds the size of a file of an administrator's.
const maxSettings = 1 << 20

// imageSettings are those of images.json: how images are kept.
type imageSettings struct {
	// Compressed is what becomes of a layer's compressed form when it is unpacked: "keep" (the default), or "drop" if it
	// was pulled; then a push or save that needs it fetches it again from where it came.
	Compressed string `json:"compressed"`
	// Layers is what an unpacked layer is: "erofs" (the default) for one file that the kernel mounts, where it can, or
	// "directory".
	Layers string `json:"layers"`
	// Pinned are the names of images that no kubelet is to take away for want of room; * stands for any characters but
	// slashes.
	Pinned []string `json:"pinned"`
}

// imageSettings reads them, and has them count for layers that are unpacked from now on.
func (e *Engine) imageSettings() (s imageSettings, err error) {
	file, raw, err := e.settingsFile("images.json")
	if err != nil {
		return s, err
	}
	if raw != nil {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&s); err != nil {
			return s, fmt.Errorf("%s: %w", file, err)
		}
	}
	switch s.Layers {
	case "directory":
		e.store.Layers.Images.Store(false)
	case "":
		e.store.Layers.Images.Store(true)
	case "erofs":
		e.store.Layers.Images.Store(true)
		if err := e.store.Layers.NoImages(); err != nil {
			e.images.refused.Do(func() { e.cfg.Log("layers are directories: %v", err) })
		}
	default:
		return s, fmt.Errorf("%s: layers is %q: it can be directory or erofs", file, s.Layers)
	}
	for _, p := range s.Pinned {
		if _, err := path.Match(p, ""); err != nil {
			return s, fmt.Errorf("%s: pinned has %q: %w", file, p, err)
		}
	}
	switch s.Compressed {
	case "", "keep", "drop":
	default:
		return s, fmt.Errorf("%s: compressed is %q: it can be keep or drop", file, s.Compressed)
	}
	return s, nil
}

// PinnedImages are the patterns of names that the settings want kept from kubelets, as path.Match has them.
func (e *Engine) PinnedImages() ([]string, error) {
	s, err := e.imageSettings()
	return s.Pinned, err
}

// hostDirs are the folders of registries' settings.
func (c *Config) hostDirs() hosts.Dirs {
	if c.ConfigDir == "" {
		return hosts.System
	}
	return append(hosts.Dirs{filepath.Join(c.ConfigDir, "certs.d")}, hosts.System...)
}

// parseName reads a name that a client gave.
func (e *Engine) parseName(s string) (image.Reference, error) {
	names, err := shortname.Load(e.cfg.ConfigDir)
	if err != nil {
		return image.Reference{}, err
	}
	r, err := names.Parse(s)
	if err != nil {
		text := err.Error()
		if bad := (*image.BadReference)(nil); errors.As(err, &bad) {
			text = bad.Reason() // programs know these words; who gave the name has it
		}
		return r, &Error{Class: ErrInvalid, Text: text, Cause: err}
	}
	return r, nil
}

// familiar is how clients call r: in short, if that means the same.
func (e *Engine) familiar(r image.Reference) string {
	names, err := shortname.Load(e.cfg.ConfigDir)
	if err != nil {
		return r.String()
	}
	return names.Familiar(r)
}

// familiarName is familiar without tag and digest.
func (e *Engine) familiarName(r image.Reference) string {
	names, err := shortname.Load(e.cfg.ConfigDir)
	if err != nil {
		return r.Name()
	}
	return names.FamiliarName(r)
}

// clientFor speaks to the registry of domain with a client's credentials, which no other host is sent: neither a mirror
// nor where a redirect leads.
func (e *Engine) clientFor(c *Credentials, domain string) *client.Client {
	if c == nil || *c == (Credentials{}) {
		return e.registry
	}
	user, password := c.User, c.Password
	switch {
	case c.Bearer != "":
		user, password = client.BearerUser, c.Bearer
	case c.Token != "":
		user, password = client.TokenUser, c.Token
	}
	return client.New(client.Options{PlainHTTP: e.cfg.PlainHTTP, HostDirs: e.cfg.hostDirs(), UserAgent: "cale",
		Credentials: func(host string) (string, string) {
			if host == domain {
				return user, password
			}
			if e.cfg.Credentials != nil {
				return e.cfg.Credentials(host)
			}
			return "", ""
		}})
}

// RegistryClient speaks to registries as the settings of this machine say, with the credentials given for each host.
func (e *Engine) RegistryClient(credentials func(host string) (user, password string)) *client.Client {
	return client.New(client.Options{PlainHTTP: e.cfg.PlainHTTP, HostDirs: e.cfg.hostDirs(), UserAgent: "cale", Credentials: credentials})
}

// isReferenceError tells a name that is none from settings that can't be read.
func isReferenceError(err error) bool { return errors.Is(err, image.ErrReference) }
