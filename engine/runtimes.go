package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"cale/shim"
)

// wellKnown are the OCI runtimes that need no configuration where they are in $PATH.
var wellKnown = []string{"runc", "crun", "youki", "runsc", "kata-runtime"}

// configuredRuntimes are those of runtimes.json, an object by name as in Docker's daemon.json: path, runtimeArgs,
// runtimeType.
func (e *Engine) configuredRuntimes() (map[string]Runtime, error) {
	all := maps.Clone(e.cfg.Runtimes)
	file, raw, err := e.settingsFile("runtimes.json")
	if err != nil || raw == nil {
		return all, err
	}
	var list map[string]struct {
		Path string   `json:"path"`
		Args []string `json:"runtimeArgs"`
		Type string   `json:"runtimeType"`

		Options json.RawMessage `json:"options"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if all == nil {
		all = map[string]Runtime{}
	}
	for name, r := range list {
		switch {
		case ourRuntimes[name]:
			return nil, fmt.Errorf("%s: runtime %q is built in and can't be another", file, name)
		case r.Type != "" && r.Path != "":
			return nil, fmt.Errorf("%s: runtime %s: either a path or a runtimeType", file, name)
		case len(r.Options) > 0:
			return nil, fmt.Errorf("%s: runtime %s: options for shims are not built in Cale yet; shims have files of their own for them", file, name)
		case r.Type != "":
			if r.Path, err = shimProgram(r.Type); err != nil {
				return nil, fmt.Errorf("%s: runtime %s: %w", file, name, err)
			}
		case !filepath.IsAbs(r.Path):
			return nil, fmt.Errorf("%s: runtime %s: path %q is not absolute", file, name, r.Path)
		}
		all[name] = Runtime{Path: r.Path, Args: r.Args}
	}
	return all, nil
}

// RuntimeFeatures are what a runtime can do beyond what all can.
type RuntimeFeatures struct {
	RecursiveReadOnly bool
	UserNamespaces    bool // of pods, with mapped owners
}

// RuntimeList gives the runtimes that pods may name, and what each can do. "" is the default.
func (e *Engine) RuntimeList(ctx context.Context) (map[string]RuntimeFeatures, error) {
	own := RuntimeFeatures{RecursiveReadOnly: recursiveAttributes(), UserNamespaces: MapsOwners()}
	out := map[string]RuntimeFeatures{"cale": own}
	configured, err := e.configuredRuntimes()
	if err != nil {
		return nil, err
	}
	names := slices.Collect(maps.Keys(configured))
	for _, n := range append(names, wellKnown...) {
		t, err := e.runtimeFor(n)
		if err == nil && t.oci != "" {
			out[n] = RuntimeFeatures{RecursiveReadOnly: !shim.IsShim(t.oci) && askFeatures(ctx, t.oci).rro()}
		}
	}
	out[""] = own
	if d := e.cfg.DefaultRuntime; d != "" {
		out[""] = out[d]
	}
	return out, nil
}

// features is the part of what an OCI runtime says of itself (features.md of the specification) that matters here.
type features struct {
	MountOptions []string `json:"mountOptions"`
}

func (f features) rro() bool { return slices.Contains(f.MountOptions, "rro") }

var featuresAsked struct {
	sync.Mutex
	byPath map[string]featuresOf
}

type featuresOf struct {
	features
	modified time.Time // of the program that said so
}

// featuresTimeout is how long a runtime may think about itself.
const featuresTimeout = 5 * time.Second

// askFeatures runs a runtime's features command, once for each version of the program. One that has none has none of
// these features.
func askFeatures(ctx context.Context, path string) (f features) {
	st, err := os.Stat(path)
	if err != nil {
		return f
	}
	featuresAsked.Lock()
	defer featuresAsked.Unlock()
	if have, ok := featuresAsked.byPath[path]; ok && have.modified.Equal(st.ModTime()) {
		return have.features
	}
	ctx, cancel := context.WithTimeout(ctx, featuresTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, path, "features").Output(); err == nil {
		_ = json.Unmarshal(out, &f) // what isn't said isn't there
	} else if ctx.Err() != nil {
		return f
	}
	if featuresAsked.byPath == nil {
		featuresAsked.byPath = map[string]featuresOf{}
	}
	featuresAsked.byPath[path] = featuresOf{f, st.ModTime()}
	return f
}
