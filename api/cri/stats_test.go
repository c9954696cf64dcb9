package cri

import (
	"math"
	"testing"

	"cale/runtime/cgroup"
)

// What may be swapped yet is told by the limit, which cgroup v1 has for memory and swap together, and not by what was
// used at most.
func TestSwapThatIsLeft(t *testing.T) {
	const none = math.MaxUint64
	for name, c := range map[string]struct {
		m    cgroup.MemoryStats
		want uint64
		told bool
	}{
		"v2":            {cgroup.MemoryStats{SwapUsage: 10, SwapLimit: 100, SwapMax: 50}, 90, true},
		"v2, unlimited": {cgroup.MemoryStats{SwapUsage: 10, SwapLimit: none, SwapMax: 50}, 0, false},
		"v2, none":      {cgroup.MemoryStats{SwapLimit: 0, SwapMax: 0}, 0, true},
		"v1":            {cgroup.MemoryStats{Limit: 100, SwapLimit: 150, SwapMax: 120, Stat: map[string]uint64{"total_swap": 20}}, 30, true},
		"v1, unlimited": {cgroup.MemoryStats{Limit: none, SwapLimit: none, Stat: map[string]uint64{"total_swap": 20}}, 0, false},
		"v1, none":      {cgroup.MemoryStats{Limit: 100, SwapLimit: 100, Stat: map[string]uint64{"total_swap": 0}}, 0, true},
	} {
		got := swapOf(&c.m, 1)
		if (got.SwapAvailableBytes != nil) != c.told || got.SwapAvailableBytes.GetValue() != c.want {
			t.Errorf("%s: %v, want %d (%v)", name, got.SwapAvailableBytes, c.want, c.told)
		}
	}
}
