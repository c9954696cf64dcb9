package resctrl

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// class is a directory that looks like one of the kernel's, where the machine has none.
func class(t *testing.T, dir, schemata string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "mon_groups"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "schemata"), []byte(schemata), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestClassThatIsThere(t *testing.T) {
	root := t.TempDir()
	class(t, filepath.Join(root, "gold"), "    MB:0=  20;1=  70\n    L3:0=7f0;1=01f\n")
	for _, test := range []struct {
		rdt specs.LinuxIntelRdt
		err string
	}{
		{specs.LinuxIntelRdt{ClosID: "gold"}, ""},
		{specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=7f0;1=1f"}, ""},
		{specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:1=1f", "MB:0=20"}}, ""},
		{specs.LinuxIntelRdt{ClosID: "gold", MemBwSchema: "MB:0=30"}, "other schemata"},
		{specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L2:0=f"}}, "other schemata"},
		{specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"nonsense"}}, "no schema"},
		{specs.LinuxIntelRdt{ClosID: "none"}, "no such class"},
		{specs.LinuxIntelRdt{ClosID: "../x"}, "no name of a class"},
		{specs.LinuxIntelRdt{ClosID: "info"}, "no name of a class"},
	} {
		g, err := Place(root, &test.rdt, "id")
		if err == nil {
			err = g.Create(&test.rdt)
		}
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%+v: %v", test.rdt, err)
		}
		if err == nil && g.Made {
			t.Errorf("%+v: it was there before", test.rdt)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "none")); err == nil {
		t.Error("a class that could not be made is there")
	}
}

func TestOwnClass(t *testing.T) {
	root := t.TempDir()
	rdt := &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=10", Schemata: []string{"L2:0=1"}, EnableMonitoring: true}
	g, err := Place(root, rdt, "id")
	if err != nil || !g.Made || g.Dir != root+"/id" || g.Monitor != root+"/id/mon_groups/id" {
		t.Fatalf("%+v, %v", g, err)
	}
	class(t, g.Dir, "") // which is how the kernel makes one
	if err := g.Create(rdt); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(g.Dir + "/schemata"); string(text) != "L3:0=f\nMB:0=10\nL2:0=1\n" {
		t.Errorf("schemata: %q", text)
	}
	if got := strings.Join(g.TaskFiles(), " "); got != g.Dir+"/tasks "+g.Monitor+"/tasks" {
		t.Errorf("tasks: %s", got)
	}
	if err := (Group{Dir: g.Dir, Monitor: g.Monitor}).Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(g.Monitor); err == nil {
		t.Error("the monitoring group is still there")
	}
	if whole, err := Place(root, &specs.LinuxIntelRdt{ClosID: "/"}, "id"); err != nil || whole.Dir != root || whole.Made {
		t.Errorf("the root: %+v, %v", whole, err)
	}
}

func TestMount(t *testing.T) {
	if at, err := Mount(); err != nil && !errors.Is(err, ErrUnavailable) {
		t.Errorf("%s, %v", at, err)
	}
}
