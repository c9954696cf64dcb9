// Package cni connects network namespaces by plug-ins of the Container Network Interface, as its specification
// describes (github.com/containernetworking/cni, SPEC.md, versions 0.1 to 1.1).
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxConfig bounds the size of a configuration's file, and what a plug-in answers.
const maxConfig = 1 << 20

// ErrNone is a directory without any configuration.
var ErrNone = errors.New("no CNI configuration")

// List is a network's configuration: plug-ins that are called one after the other.
type List struct {
	Name    string            `json:"name"`
	Version string            `json:"cniVersion"`
	Plugins []json.RawMessage `json:"plugins"`
	// NoGC keeps plug-ins from being told which attachments there are: somebody else uses the network too.
	NoGC flag `json:"disableGC,omitempty"`

	File string `json:"-"` // where it was read
}

// flag is a boolean, which some write as text.
type flag bool

// UnmarshalJSON implements json.Unmarshaler.
func (f *flag) UnmarshalJSON(raw []byte) error {
	v, err := strconv.ParseBool(strings.ToLower(strings.Trim(string(raw), `"`)))
	*f = flag(v)
	return err
}

// newest is the version of the specification that this package speaks at most.
const newest = "1.1.0"

// plugin is the part of a plug-in's configuration that concerns its caller.
type plugin struct {
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities"`
}

// Load reads the first configuration of a directory, by name; ErrNone, if there is no file of one.
func Load(dir string) (*List, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("CNI configuration: %w", err)
	}
	for _, e := range entries { // sorted by name
		switch filepath.Ext(e.Name()) {
		case ".conf", ".conflist", ".json":
			if strings.HasPrefix(e.Name(), ".") || e.IsDir() {
				continue
			}
			return read(filepath.Join(dir, e.Name()))
		}
	}
	return nil, ErrNone
}

func read(file string) (*List, error) {
	raw, err := contents(file)
	if err != nil {
		return nil, fmt.Errorf("CNI configuration %s: %w", file, err)
	}
	l, err := parse(raw, filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("CNI configuration %s: %w", file, err)
	}
	l.File = file
	return l, nil
}

func contents(file string) ([]byte, error) {
	st, err := os.Stat(file)
	if err == nil && st.Size() > maxConfig {
		err = errors.New("larger than 1 MiB")
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// parse reads a list, or the configuration of one plug-in, which is a list of one. More plug-ins of a list may be in
// the folder in dir that has the network's name.
func parse(raw []byte, dir string) (*List, error) {
	var l struct {
		List
		Versions []string `json:"cniVersions"`
		Inlined  flag     `json:"loadOnlyInlinedPlugins"`
		Type     string   `json:"type"`
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return nil, err
	}
	if l.Name == "" || l.Name == "." || l.Name == ".." || strings.ContainsAny(l.Name, "/\x00") {
		return nil, fmt.Errorf("%q is no name of a network", l.Name)
	}
	for _, v := range l.Versions {
		if !before(newest, v) && (l.Version == "" || before(newest, l.Version) || before(l.Version, v)) {
			l.Version = v
		}
	}
	if l.Version == "" {
		l.Version = "0.2.0" // as the specification's library has it
	}
	if l.Plugins == nil && l.Type != "" {
		l.Plugins, l.Inlined = []json.RawMessage{slices.Clone(raw)}, true
	}
	if !l.Inlined {
		more, err := folder(filepath.Join(dir, l.Name))
		if err != nil {
			return nil, err
		}
		l.Plugins = append(l.Plugins, more...)
	}
	if len(l.Plugins) == 0 {
		return nil, errors.New("it lists no plug-ins")
	}
	for _, p := range l.Plugins {
		if _, err := l.look(p); err != nil {
			return nil, err
		}
	}
	return &l.List, nil
}

// folder reads the plug-ins' configurations of a folder, in the order of their names.
func folder(dir string) (list []json.RawMessage, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".conf" {
			continue
		}
		raw, err := contents(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		list = append(list, raw)
	}
	return list, err
}

func (l *List) look(raw json.RawMessage) (p plugin, err error) {
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, err
	}
	// The type is a file's name in the directories of plug-ins, nowhere else.
	if p.Type == "" || p.Type != filepath.Base(p.Type) || p.Type == "." || p.Type == ".." {
		return p, fmt.Errorf("%q is no plug-in's name", p.Type)
	}
	return p, nil
}

// CanPublish says whether some plug-in of the list looks after ports of the host.
func (l *List) CanPublish() bool {
	return slices.ContainsFunc(l.Plugins, func(raw json.RawMessage) bool {
		p, err := l.look(raw)
		return err == nil && p.Capabilities["portMappings"]
	})
}

// stdin is what a plug-in reads: its configuration, with the network's name and version, what its caller offers it,
// and the result so far.
func (l *List) stdin(raw json.RawMessage, offered map[string]any, prev json.RawMessage) ([]byte, error) {
	p, err := l.look(raw)
	if err != nil {
		return nil, err
	}
	var conf map[string]json.RawMessage
	if err := json.Unmarshal(raw, &conf); err != nil {
		return nil, err
	}
	set := func(key string, v any) {
		if err == nil {
			conf[key], err = json.Marshal(v)
		}
	}
	set("name", l.Name)
	set("cniVersion", l.Version)
	runtime := map[string]any{}
	for name, v := range offered {
		if p.Capabilities[name] {
			runtime[name] = v
		}
	}
	if len(runtime) > 0 {
		set("runtimeConfig", runtime)
	}
	if len(prev) > 0 {
		conf["prevResult"] = prev
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(conf)
}
