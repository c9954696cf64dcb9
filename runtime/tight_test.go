package runtime

import (
	"os"
	"strings"
	"testing"

	"cale/bench/peers"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestTightMemory: a limit of 1 MiB is enough for a small static program; one that is too little for any is said to be.
func TestTightMemory(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(w.root()+"/bin/small", peers.True(), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(limit int64) error {
		t.Helper()
		w.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
		_, code, err := w.runSpec()
		if err == nil && code != 0 {
			t.Errorf("with %d bytes it ends with %d", limit, code)
		}
		return err
	}
	w.spec.Process.Args = []string{"/bin/small"}
	if err := run(1 << 20); err != nil {
		t.Errorf("1 MiB: %v", err)
	}
	if err := run(4096); err == nil || !strings.Contains(err.Error(), "memory limit too low") {
		t.Errorf("4 KiB: %v", err)
	}
}
