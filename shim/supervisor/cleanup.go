package supervisor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"cale/atomicfile"
	"cale/shim/task"
)

// optionsFile keeps, in the bundle, by which foreign runtime a container is
// run: containerd.runc.v1.Options.
const optionsFile = "runtime.options"

func keepOptions(bundle string, o task.RuncOptions) error {
	return atomicfile.Write(filepath.Join(bundle, optionsFile), o.Append(nil), 0o600, false)
}

// Cleanup removes what is left of a container whose shim is gone.
func Cleanup(ctx context.Context, bundle, stateDir, id string) error {
	var rt Runtime = Own{}
	b, err := os.ReadFile(filepath.Join(bundle, optionsFile))
	if err == nil {
		var o task.RuncOptions
		if err := o.Unmarshal(b); err != nil {
			return err
		}
		rt = ForeignOf(o)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return rt.Cleanup(ctx, bundle, stateDir, id)
}
