package cgroup

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Usage tells the same as Stats of what it tells, and that a group is gone.
func TestUsage(t *testing.T) {
	c := newGroup(t, &specs.LinuxResources{})
	start(t, c, "work")
	eventually(t, "time and memory used", func() bool {
		s, err := c.Usage()
		return err == nil && s.CPU.Total > 0 && (s.Memory == nil || s.Memory.Usage > 0)
	})
	before, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Usage()
	if err != nil {
		t.Fatal(err)
	}
	after, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if got.V2 != after.V2 || got.CPU.Total < before.CPU.Total || got.CPU.Total > after.CPU.Total || (got.CPU.PSI == nil) != (after.CPU.PSI == nil) {
		t.Errorf("processor: %+v, between %+v and %+v", got.CPU, before.CPU, after.CPU)
	}
	if (got.Pids == nil) != (after.Pids == nil) || got.Pids != nil && got.Pids.Current == 0 {
		t.Errorf("tasks: %+v, want about %+v", got.Pids, after.Pids)
	}
	m, whole := got.Memory, after.Memory
	if (m == nil) != (whole == nil) {
		t.Fatalf("memory: %+v, want about %+v", m, whole)
	}
	if m == nil {
		return
	}
	if m.Limit != whole.Limit || m.SwapLimit != whole.SwapLimit || (m.PSI == nil) != (whole.PSI == nil) {
		t.Errorf("memory: %+v, want about %+v", m, whole)
	}
	for name := range usageStat {
		v, ok := m.Stat[name]
		if _, there := whole.Stat[name]; there != ok || v > whole.Stat[name] && name == "pgfault" {
			t.Errorf("%s: %d (%v), want %d (%v)", name, v, ok, whole.Stat[name], there)
		}
	}
}

func TestUsageOfNothing(t *testing.T) {
	if s, err := openGroup(t).Usage(); err == nil {
		t.Errorf("a group that isn't there: %+v", s)
	}
}
