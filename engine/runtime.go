package engine

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// target is which programs run a container.
type target struct {
	shim string
	oci  string // a foreign OCI runtime, or "" for our own
}

// ourRuntimes are names for what is built in.
var ourRuntimes = map[string]bool{"": true, "cale": true, "cale-oci": true, "io.cale.v1": true}

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
		if r.Type == "shim" {
			return target{}, foreignShim(name)
		}
		return target{shim: e.cfg.Shim, oci: r.Path}, nil
	}
	if ourRuntimes[name] {
		return target{shim: e.cfg.Shim}, nil
	}
	if kind, ok := strings.CutPrefix(name, "io.containerd."); ok {
		name = "containerd-shim-" + strings.ReplaceAll(kind, ".", "-")
		if _, err := exec.LookPath(name); err == nil {
			return target{}, foreignShim(name)
		}
		return target{}, invalid("unknown or invalid runtime name: %s is not in $PATH", name)
	}
	path := name
	if !filepath.IsAbs(path) {
		// A name alone may only mean a well known runtime: anything else in $PATH is no runtime.
		if !slices.Contains(wellKnown, name) {
			return target{}, invalid("unknown or invalid runtime name: %s", name)
		}
	}
	path, err = exec.LookPath(path)
	if err != nil {
		return target{}, invalid("unknown or invalid runtime name: %s", name)
	}
	if strings.HasPrefix(filepath.Base(path), "containerd-shim-") {
		return target{}, foreignShim(name)
	}
	return target{shim: e.cfg.Shim, oci: path}, nil
}

// foreignShim refuses a shim that isn't ours: it could not write our logs or serve who attaches.
func foreignShim(name string) error {
	return fail(ErrUnsupported, "runtime %s: shims other than cale-shim are not supported; name the OCI runtime itself", name)
}
