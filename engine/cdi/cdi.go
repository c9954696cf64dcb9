// Package cdi reads descriptions of devices as vendors put them on a node: the Container Device Interface
// (tags.cncf.io/container-device-interface, SPEC.md).
package cdi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	cdispecs "tags.cncf.io/container-device-interface/specs-go"
)

// Dirs are where descriptions are; those of a later directory replace those of an earlier one.
var Dirs = []string{"/etc/cdi", "/var/run/cdi"}

// maxFile bounds the size of a description's file.
const maxFile = 4 << 20

// found is a device, and what all devices of its file have in common.
type found struct {
	file   string
	rank   int // of the directory
	device *cdispecs.Device
	common *cdispecs.ContainerEdits
	twice  string // another file of the same directory that has the name too
}

// Find gives the edits that devices need, by their full names, vendor/class=name. Files are read anew each time: they
// come and go with drivers. A file that makes no sense is only told if a device is missing.
func Find(dirs []string, names []string) ([]*cdispecs.ContainerEdits, error) {
	if len(names) == 0 {
		return nil, nil
	}
	want := map[string]*found{}
	for _, n := range names {
		if _, _, err := split(n); err != nil {
			return nil, err
		}
		want[n] = nil
	}
	var broken []error
	for rank, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("CDI: %w", err)
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext != ".json" && ext != ".yaml" {
				continue
			}
			if err := look(filepath.Join(dir, e.Name()), rank, want); err != nil {
				broken = append(broken, err)
			}
		}
	}
	var out []*cdispecs.ContainerEdits
	seen := map[*cdispecs.ContainerEdits]bool{}
	for _, n := range names {
		f := want[n]
		switch {
		case f == nil:
			return nil, errors.Join(append([]error{fmt.Errorf("CDI: no device %s in %s", n, strings.Join(dirs, ", "))}, broken...)...)
		case f.twice != "":
			return nil, fmt.Errorf("CDI: device %s is described twice, by %s and %s", n, f.file, f.twice)
		}
		for _, edits := range []*cdispecs.ContainerEdits{f.common, &f.device.ContainerEdits} {
			if !seen[edits] {
				seen[edits] = true
				out = append(out, edits)
			}
		}
	}
	return out, nil
}

// List gives the full names of all devices described, in the order of their names, numbers as such. What can't be read
// is left out.
func List(dirs []string) []string {
	seen := map[string]bool{}
	for _, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, file := range files {
			if ext := filepath.Ext(file); ext != ".json" && ext != ".yaml" {
				continue
			}
			s, err := read(file)
			if err != nil {
				continue
			}
			for _, d := range s.Devices {
				seen[s.Kind+"="+d.Name] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b string) int {
		kindA, nameA, _ := strings.Cut(a, "=")
		kindB, nameB, _ := strings.Cut(b, "=")
		if kindA == kindB {
			a, errA := strconv.Atoi(nameA)
			b, errB := strconv.Atoi(nameB)
			if errA == nil && errB == nil {
				return a - b
			}
		}
		return strings.Compare(a, b)
	})
}

// split parts a name in its kind, vendor/class, and the device.
func split(name string) (kind, device string, err error) {
	kind, device, ok := strings.Cut(name, "=")
	vendor, class, ok2 := strings.Cut(kind, "/")
	if !ok || !ok2 || vendor == "" || class == "" || device == "" || strings.ContainsAny(name, " \t\n\x00") || strings.Contains(class, "/") {
		return "", "", fmt.Errorf("CDI: %q is no device's name: it has to be VENDOR/CLASS=NAME", name)
	}
	return kind, device, nil
}

// look notes which of the wanted devices a file describes.
func look(file string, rank int, want map[string]*found) error {
	s, err := read(file)
	if err != nil {
		return fmt.Errorf("CDI: %s: %w", file, err)
	}
	for i := range s.Devices {
		name := s.Kind + "=" + s.Devices[i].Name
		have, wanted := want[name]
		switch {
		case !wanted:
		case have != nil && have.rank == rank:
			have.twice = file
		default:
			want[name] = &found{file: file, rank: rank, device: &s.Devices[i], common: &s.ContainerEdits}
		}
	}
	return nil
}

func read(file string) (*cdispecs.Spec, error) {
	st, err := os.Stat(file)
	if err == nil && (st.Size() > maxFile || !st.Mode().IsRegular()) {
		err = errors.New("no file of at most 4 MiB")
	}
	var raw []byte
	if err == nil {
		raw, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	s := new(cdispecs.Spec)
	if filepath.Ext(file) == ".yaml" {
		err = yaml.Unmarshal(raw, s)
	} else {
		err = json.Unmarshal(raw, s)
	}
	if err == nil && s.Version == "" {
		err = errors.New("it has no cdiVersion")
	}
	return s, err
}
