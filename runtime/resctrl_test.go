package runtime

import (
	"errors"
	"strings"
	"testing"

	"cale/runtime/resctrl"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Where there is no resctrl the error names it, and nothing is left.
func TestIntelRdtUnavailable(t *testing.T) {
	w := newWorld(t)
	if _, err := resctrl.Mount(); err == nil {
		t.Skip("this machine has resctrl")
	}
	w.spec.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "gold"}
	if _, _, err := w.run("true"); !errors.Is(err, resctrl.ErrUnavailable) || !strings.Contains(err.Error(), "intelRdt") {
		t.Errorf("error: %v", err)
	}
	if list, err := List(w.state()); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}
