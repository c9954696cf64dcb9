package supervisor

import (
	"cale/runtime/cgroup"
	"cale/shim/task"
	"cale/wire"
)

// Type URLs of containerd's metrics.
const (
	typeMetricsV1 = "io.containerd.cgroups.v1.Metrics"
	typeMetricsV2 = "io.containerd.cgroups.v2.Metrics"
)

// containerdMetrics puts the numbers that containerd's clients look at (pids, cpu and
// memory) into containerd's message for the cgroup version.
// Sources: cgroup1/stats/metrics.proto and cgroup2/stats/metrics.proto of
// github.com/containerd/cgroups.
func containerdMetrics(s *cgroup.Stats) task.Any {
	if s.V2 {
		return task.Any{URL: typeMetricsV2, Value: metricsV2(s)}
	}
	return task.Any{URL: typeMetricsV1, Value: metricsV1(s)}
}

func metricsV1(s *cgroup.Stats) []byte {
	var b []byte
	if s.Pids != nil {
		b = wire.AppendBytes(b, 2, wire.AppendUint(wire.AppendUint(nil, 1, s.Pids.Current), 2, s.Pids.Limit))
	}
	if c := s.CPU; c != nil {
		var usage []byte
		usage = wire.AppendUint(usage, 1, c.Total)
		usage = wire.AppendUint(usage, 2, c.System)
		usage = wire.AppendUint(usage, 3, c.User)
		if len(c.PerCPU) > 0 {
			var packed []byte
			for _, n := range c.PerCPU {
				packed = wire.AppendVarint(packed, n)
			}
			usage = wire.AppendBytes(usage, 4, packed)
		}
		var throttling []byte
		throttling = wire.AppendUint(throttling, 1, c.Periods)
		throttling = wire.AppendUint(throttling, 2, c.ThrottledPeriods)
		throttling = wire.AppendUint(throttling, 3, c.ThrottledTime)
		b = wire.AppendBytes(b, 3, wire.AppendBytes(wire.AppendBytes(nil, 1, usage), 2, throttling))
	}
	if m := s.Memory; m != nil {
		var mem []byte
		mem = wire.AppendUint(mem, 1, m.Cache)
		for i, key := range []string{
			"rss", "rss_huge", "mapped_file", "dirty", "writeback", "pgpgin", "pgpgout", "pgfault",
			"pgmajfault", "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable",
			"hierarchical_memory_limit", "hierarchical_memsw_limit", "total_cache", "total_rss",
			"total_rss_huge", "total_mapped_file", "total_dirty", "total_writeback", "total_pgpgin",
			"total_pgpgout", "total_pgfault", "total_pgmajfault", "total_inactive_anon",
			"total_active_anon", "total_inactive_file", "total_active_file", "total_unevictable",
		} {
			mem = wire.AppendUint(mem, i+2, m.Stat[key])
		}
		mem = wire.AppendBytes(mem, 33, memoryEntry(m.Usage, m.Limit, m.MaxUsage, m.Failcnt))
		mem = wire.AppendBytes(mem, 34, memoryEntry(m.SwapUsage, m.SwapLimit, m.SwapMax, m.SwapFails))
		mem = wire.AppendBytes(mem, 35, memoryEntry(m.Kernel, 0, 0, 0))
		mem = wire.AppendBytes(mem, 36, memoryEntry(m.KernelTCP, 0, 0, 0))
		b = wire.AppendBytes(b, 4, mem)
	}
	return b
}

func memoryEntry(usage, limit, most, fails uint64) []byte {
	b := wire.AppendUint(nil, 1, limit)
	b = wire.AppendUint(b, 2, usage)
	b = wire.AppendUint(b, 3, most)
	return wire.AppendUint(b, 4, fails)
}

func metricsV2(s *cgroup.Stats) []byte {
	var b []byte
	if s.Pids != nil {
		b = wire.AppendBytes(b, 1, wire.AppendUint(wire.AppendUint(nil, 1, s.Pids.Current), 2, s.Pids.Limit))
	}
	if c := s.CPU; c != nil {
		var cpu []byte
		cpu = wire.AppendUint(cpu, 1, c.Total/1000) // microseconds
		cpu = wire.AppendUint(cpu, 2, c.User/1000)
		cpu = wire.AppendUint(cpu, 3, c.System/1000)
		cpu = wire.AppendUint(cpu, 4, c.Periods)
		cpu = wire.AppendUint(cpu, 5, c.ThrottledPeriods)
		cpu = wire.AppendUint(cpu, 6, c.ThrottledTime/1000)
		b = wire.AppendBytes(b, 2, cpu)
	}
	if m := s.Memory; m != nil {
		var mem []byte
		for i, key := range []string{
			"anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty",
			"file_writeback", "anon_thp", "inactive_anon", "active_anon", "inactive_file", "active_file",
			"unevictable", "slab_reclaimable", "slab_unreclaimable", "pgfault", "pgmajfault",
			"workingset_refault", "workingset_activate", "workingset_nodereclaim", "pgrefill", "pgscan",
			"pgsteal", "pgactivate", "pgdeactivate", "pglazyfree", "pglazyfreed", "thp_fault_alloc",
			"thp_collapse_alloc",
		} {
			mem = wire.AppendUint(mem, i+1, m.Stat[key])
		}
		mem = wire.AppendUint(mem, 32, m.Usage)
		mem = wire.AppendUint(mem, 33, m.Limit)
		mem = wire.AppendUint(mem, 34, m.SwapUsage)
		mem = wire.AppendUint(mem, 35, m.SwapLimit)
		b = wire.AppendBytes(b, 4, mem)
	}
	return b
}
