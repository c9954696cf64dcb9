package shim

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// ExitFile is the name of the file in a container's bundle that keeps how its
// init ended: {"id":…,"status":…,"at":RFC3339Nano,"oom":…,"unknown":…}. It is written
// before anybody is told.
const ExitFile = "exit.json"

// ReadExit reads the exit status that the shim of bundle left on disk for the
// container id. The error matches fs.ErrNotExist when there is none.
func ReadExit(bundle, id string) (Exit, error) {
	f, err := os.Open(filepath.Join(bundle, ExitFile))
	if err != nil {
		return Exit{}, err
	}
	defer f.Close()
	var e struct {
		ID     string    `json:"id"`
		Status uint32    `json:"status"`
		At     time.Time `json:"at"`
		Pid    uint32    `json:"pid"`
		OOM    bool      `json:"oom"`
		Lost   bool      `json:"unknown"`
	}
	if err := json.NewDecoder(io.LimitReader(f, 64<<10)).Decode(&e); err != nil {
		return Exit{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if e.ID != id {
		return Exit{}, fmt.Errorf("%s is about container %q: %w", f.Name(), e.ID, fs.ErrNotExist)
	}
	return Exit{Status: e.Status, At: e.At, Pid: e.Pid, OOMKilled: e.OOM, Unknown: e.Lost}, nil
}
