// Package shortname says what image names without a registry stand for.
//
// The settings are in the format of containers-registries.conf(5), of which
// "unqualified-search-registries" and "[aliases]" are read.
package shortname

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"cale/image"
)

// File is the name of the file of settings in the configuration's directory.
const File = "registries.conf"

const maxFile = 4 << 20

// Names is what short names stand for. The zero value is Docker's: they are
// those of docker.io.
type Names struct {
	registry string            // of names that are no aliases; "" for docker.io
	aliases  map[string]string // from a name without tag to a repository
}

// Load reads the settings in dir. Without a directory (""), or a file there,
// the names are Docker's.
func Load(dir string) (*Names, error) {
	if dir == "" {
		return &Names{}, nil
	}
	path := filepath.Join(dir, File)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return &Names{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("settings of short names: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	var n *Names
	if err == nil {
		n, err = parse(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("settings of short names: %s: %w", path, err)
	}
	return n, nil
}

func parse(raw []byte) (*Names, error) {
	var file map[string]any
	if err := toml.Unmarshal(raw, &file); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			line, _ := at.Position()
			return nil, fmt.Errorf("line %d: %s", line, strings.TrimPrefix(at.Error(), "toml: "))
		}
		return nil, err
	}
	n := &Names{aliases: map[string]string{}}
	for key, v := range file {
		switch key {
		case "unqualified-search-registries":
			list, ok := v.([]any)
			if !ok || len(list) > 1 {
				return nil, fmt.Errorf("%s is not a list of one registry: a name stands for one image, whatever registries are up", key)
			}
			if len(list) == 1 {
				s, _ := list[0].(string)
				if _, err := repository(s + "/a"); err != nil {
					return nil, fmt.Errorf("%s: %q is no registry", key, s)
				}
				n.registry = s
			}
		case "short-name-mode": // says when to ask which registry is meant; it is never in doubt
		case "aliases":
			table, ok := v.(map[string]any)
			if !ok {
				return nil, errors.New("aliases is no table")
			}
			for alias, v := range table {
				s, _ := v.(string)
				to, err := repository(s)
				if err != nil {
					return nil, fmt.Errorf("alias %q: %q is no repository with its registry", alias, s)
				}
				if !short(alias) || !image.ValidRepository(alias) {
					return nil, fmt.Errorf("alias %q: it is no short name", alias)
				}
				n.aliases[alias] = to
			}
		default:
			return nil, fmt.Errorf("%s is not known here; what a registry's mirrors are is set in certs.d", key)
		}
	}
	return n, nil
}

// repository checks a full name without tag and digest.
func repository(s string) (string, error) {
	r, err := image.ParseReference(s)
	if err != nil || short(s) || r.Tag != image.DefaultTag || strings.HasSuffix(s, ":"+image.DefaultTag) || !r.Digest.IsZero() {
		return "", image.ErrReference
	}
	return s, nil
}

// short tells a name that names no registry.
func short(name string) bool {
	first, _, ok := strings.Cut(name, "/")
	return !ok || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first
}

// Parse reads a name as image.ParseReference does, with a short one spelled
// out.
func (n *Names) Parse(s string) (image.Reference, error) {
	if !short(s) || n.registry == "" && len(n.aliases) == 0 {
		return image.ParseReference(s)
	}
	if _, err := image.ParseReference(s); err != nil {
		return image.Reference{}, err // it is told as it was typed
	}
	return image.ParseReference(n.Expand(s))
}

// Expand spells out a name that is an alias, or that is short where short
// names are not docker.io's; others stay as they are. It checks nothing.
func (n *Names) Expand(s string) string {
	if !short(s) {
		return s
	}
	name, rest := s, ""
	if i := strings.IndexAny(s, ":@"); i >= 0 {
		name, rest = s[:i], s[i:]
	}
	if to, ok := n.aliases[name]; ok {
		return to + rest
	}
	if n.registry != "" {
		return n.registry + "/" + s
	}
	return s
}

// Familiar is the short form that Parse turns into r again, or the full form.
func (n *Names) Familiar(r image.Reference) string { return n.familiar(r, r.Familiar(), r.String()) }

// FamiliarName is Familiar without tag and digest.
func (n *Names) FamiliarName(r image.Reference) string {
	return n.familiar(r, r.FamiliarName(), r.Name())
}

func (n *Names) familiar(r image.Reference, brief, full string) string {
	if n.registry == "" && len(n.aliases) == 0 {
		return brief
	}
	if back, err := n.Parse(brief); err == nil && back.Name() == r.Name() {
		return brief
	}
	return full
}
