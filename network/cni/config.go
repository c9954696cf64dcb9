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

	File string `json:"-"` // where it was read
}

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
	st, err := os.Stat(file)
	if err == nil && st.Size() > maxConfig {
		err = errors.New("larger than 1 MiB")
	}
	var raw []byte
	if err == nil {
		raw, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("CNI configuration %s: %w", file, err)
	}
	l, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("CNI configuration %s: %w", file, err)
	}
	l.File = file
	return l, nil
}

// parse reads a list, or the configuration of one plug-in, which is a list of one.
func parse(raw []byte) (*List, error) {
	var l List
	if err := json.Unmarshal(raw, &l); err != nil {
		return nil, err
	}
	if l.Plugins == nil {
		l.Plugins = []json.RawMessage{slices.Clone(raw)}
	}
	if l.Name == "" || strings.ContainsAny(l.Name, "/\x00") {
		return nil, fmt.Errorf("%q is no name of a network", l.Name)
	}
	if l.Version == "" {
		l.Version = "0.2.0" // as the specification's library has it
	}
	if len(l.Plugins) == 0 {
		return nil, errors.New("it lists no plug-ins")
	}
	for _, p := range l.Plugins {
		if _, err := l.look(p); err != nil {
			return nil, err
		}
	}
	return &l, nil
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
