package engine

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"cale/shim"
)

// target is which programs run a container.
type target struct {
	shim string
	oci  string // a foreign OCI runtime, or a foreign shim to be behind ours; "" for our own
}

// ourRuntimes are names for what is built in.
var ourRuntimes = map[string]bool{"": true, "cale": true, "cale-oci": true, "io.cale.v1": true}

// alwaysThere are the names that Docker promises to have a runtime for: its default one's. Where that isn't installed,
// ours does its work.
var alwaysThere = []string{"runc", shimType + "runc.v2"}

// runtimeFor finds what a runtime's name means: a configured name, our own, an OCI runtime's path or a name in
// $PATH, or a containerd shim's type (io.containerd.NAME.VERSION) or path.
func (e *Engine) runtimeFor(name string) (target, error) {
	if name == "" {
		name = e.cfg.DefaultRuntime
	}
	configured, err := e.configuredRuntimes()
	if err != nil {
		return target{}, err
	}
	if r, ok := configured[name]; ok && r.Path != "" {
		if len(r.Args) > 0 {
			return target{}, fail(ErrUnsupported, "runtime %s: arguments for runtimes are not supported; give the path of a script", name)
		}
		return target{shim: e.cfg.Shim, oci: r.Path}, nil
	}
	if ourRuntimes[name] {
		return target{shim: e.cfg.Shim}, nil
	}
	path := name
	if strings.HasPrefix(name, shimType) {
		if path, err = shimProgram(name); err != nil {
			if slices.Contains(alwaysThere, name) {
				return target{shim: e.cfg.Shim}, nil
			}
			return target{}, invalid("unknown or invalid runtime name: %v", err)
		}
	}
	if !filepath.IsAbs(path) {
		// A name alone may only mean a well known runtime: anything else in $PATH is no runtime.
		if !slices.Contains(wellKnown, name) {
			known := append(slices.Collect(maps.Keys(configured)), "cale")
			slices.Sort(known)
			return target{}, invalid("unknown or invalid runtime name: %s: there are %s, those of $PATH by the names %s, and any by its path", name,
				strings.Join(slices.Compact(known), ", "), strings.Join(wellKnown, ", "))
		}
	}
	path, err = exec.LookPath(path)
	if err != nil {
		if slices.Contains(alwaysThere, name) {
			return target{shim: e.cfg.Shim}, nil
		}
		return target{}, invalid("unknown or invalid runtime name: %s: %v", name, err)
	}
	return target{shim: e.cfg.Shim, oci: path}, nil
}

// shimType begins the types that containerd knows shims by: io.containerd.NAME.VERSION.
const shimType = "io.containerd."

// shimProgram finds the program of a shim's type; its path is one too.
func shimProgram(kind string) (string, error) {
	program := kind
	if name, ok := strings.CutPrefix(kind, shimType); ok {
		program = "containerd-shim-" + strings.ReplaceAll(name, ".", "-")
	} else if !filepath.IsAbs(kind) || !shim.IsShim(kind) {
		return "", fmt.Errorf("%q is no shim: io.containerd.NAME.VERSION, or the path of a program containerd-shim-NAME-VERSION", kind)
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("shim %s: its program %s is not there", kind, program)
	}
	return path, nil
}
