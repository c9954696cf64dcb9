package cri

import (
	"strconv"
	"sync"

	"cale/engine"
	"cale/runtime/cgroup"
)

// containerMetrics are measured of every container, with cAdvisor's names and meanings.
var containerMetrics = sync.OnceValue(func() []metric {
	bytesOf := func(i *cgroup.IOStats) []cgroup.IOEntry { return i.ServiceBytes }
	timesOf := func(i *cgroup.IOStats) []cgroup.IOEntry { return i.Serviced }
	cpuPSI := func(x *sample) *cgroup.PSI {
		if x.CPU == nil {
			return nil
		}
		return x.CPU.PSI
	}
	memoryPSI := func(x *sample) *cgroup.PSI {
		if x.Memory == nil {
			return nil
		}
		return x.Memory.PSI
	}
	ioPSI := func(x *sample) *cgroup.PSI {
		if x.IO == nil {
			return nil
		}
		return x.IO.PSI
	}
	hugetlb := func(read func(cgroup.HugetlbStats) uint64) func(*sample) []point {
		return func(x *sample) (out []point) {
			for size, h := range x.Hugetlb {
				out = append(out, point{read(h), []string{size}})
			}
			return out
		}
	}
	return []metric{
		{"container_blkio_device_usage_total", "Bytes moved to and from a block device.", counter, []string{"device", "major", "minor", "operation"}, deviceUsage},
		{"container_cpu_cfs_periods_total", "Enforcement periods that have elapsed.", counter, nil, cpuMetric(func(c *cgroup.CPUStats) uint64 { return c.Periods })},
		{"container_cpu_cfs_throttled_periods_total", "Enforcement periods in which the container was throttled.", counter, nil, cpuMetric(func(c *cgroup.CPUStats) uint64 { return c.ThrottledPeriods })},
		{"container_cpu_cfs_throttled_seconds_total", "Time the container was throttled.", counter, nil, cpuMetric(func(c *cgroup.CPUStats) uint64 { return seconds(c.ThrottledTime) })},
		{"container_cpu_system_seconds_total", "Processor time used by the kernel for the container.", counter, nil, cpuMetric(func(c *cgroup.CPUStats) uint64 { return seconds(c.System) })},
		{"container_cpu_usage_seconds_total", "Processor time used.", counter, []string{"cpu"}, func(x *sample) []point {
			if x.CPU == nil {
				return nil
			}
			return []point{{seconds(x.CPU.Total), []string{"total"}}}
		}},
		{"container_cpu_user_seconds_total", "Processor time used by the container's own code.", counter, nil, cpuMetric(func(c *cgroup.CPUStats) uint64 { return seconds(c.User) })},
		{"container_file_descriptors", "Open file descriptors.", gauge, nil, func(x *sample) []point { return one(x.processes.Files) }},
		{"container_fs_inodes_free", "Free inodes of the file system that containers write to.", gauge, []string{"device"}, func(x *sample) []point { return onDevice(x.fs.Ffree) }},
		{"container_fs_inodes_total", "Inodes of the file system that containers write to.", gauge, []string{"device"}, func(x *sample) []point { return onDevice(x.fs.Files) }},
		{"container_fs_limit_bytes", "Size of the file system that containers write to.", gauge, []string{"device"}, func(x *sample) []point { return onDevice(x.fs.Blocks * uint64(x.fs.Bsize)) }},
		{"container_fs_reads_bytes_total", "Bytes read from a block device.", counter, []string{"device"}, deviceMetric("Read", bytesOf)},
		{"container_fs_reads_total", "Reads from a block device.", counter, []string{"device"}, deviceMetric("Read", timesOf)},
		{"container_fs_usage_bytes", "Bytes that the container has written to its root.", gauge, []string{"device"}, func(x *sample) []point { return onDevice(x.written.bytes) }},
		{"container_fs_writes_bytes_total", "Bytes written to a block device.", counter, []string{"device"}, deviceMetric("Write", bytesOf)},
		{"container_fs_writes_total", "Writes to a block device.", counter, []string{"device"}, deviceMetric("Write", timesOf)},
		{"container_hugetlb_max_usage_bytes", "Most huge pages used so far.", gauge, []string{"pagesize"}, hugetlb(func(h cgroup.HugetlbStats) uint64 { return h.MaxUsage })},
		{"container_hugetlb_usage_bytes", "Huge pages in use.", gauge, []string{"pagesize"}, hugetlb(func(h cgroup.HugetlbStats) uint64 { return h.Usage })},
		{"container_last_seen", "When the container was last seen, as Unix time.", gauge, nil, func(x *sample) []point { return one(uint64(x.Read.Unix())) }},
		{"container_memory_cache", "Bytes of page cache.", gauge, nil, memoryMetric(func(m *cgroup.MemoryStats) uint64 { return m.Cache })},
		{"container_memory_failcnt", "How often the memory limit was hit.", counter, nil, memoryMetric(func(m *cgroup.MemoryStats) uint64 { return m.Failcnt })},
		{"container_memory_failures_total", "Page faults.", counter, []string{"failure_type", "scope"}, pageFaults},
		{"container_memory_kernel_usage", "Bytes that the kernel holds for the container.", gauge, nil, memoryMetric(func(m *cgroup.MemoryStats) uint64 { return m.Kernel })},
		{"container_memory_mapped_file", "Bytes of mapped files.", gauge, nil, memoryMetric(func(m *cgroup.MemoryStats) uint64 {
			return detail(m, "total_mapped_file", "mapped_file", "file_mapped")
		})},
		{"container_memory_max_usage_bytes", "Most memory used so far.", gauge, nil, memoryMetric(func(m *cgroup.MemoryStats) uint64 { return m.MaxUsage })},
		{"container_memory_rss", "Bytes of anonymous memory.", gauge, nil, memoryMetric(func(m *cgroup.MemoryStats) uint64 { return detail(m, "total_rss", "anon") })},
		{"container_memory_swap", "Bytes in swap.", gauge, nil, memoryMetric(func(m *cgroup.MemoryStats) uint64 {
			if v, ok := m.Stat["total_swap"]; ok {
				return v
			}
			return m.SwapUsage
		})},
		{"container_memory_usage_bytes", "Memory in use, page cache included.", gauge, nil, memoryMetric(func(m *cgroup.MemoryStats) uint64 { return m.Usage })},
		{"container_memory_working_set_bytes", "Memory in use that can't simply be had back.", gauge, nil, memoryMetric(workingSet)},
		{"container_oom_events_total", "Processes killed for want of memory.", counter, nil, memoryMetric(func(m *cgroup.MemoryStats) uint64 { return m.OOMKills })},
		{"container_pressure_cpu_stalled_seconds_total", "Time all tasks waited for a processor.", counter, nil, pressureMetric(cpuPSI, true)},
		{"container_pressure_cpu_waiting_seconds_total", "Time some task waited for a processor.", counter, nil, pressureMetric(cpuPSI, false)},
		{"container_pressure_io_stalled_seconds_total", "Time all tasks waited for input or output.", counter, nil, pressureMetric(ioPSI, true)},
		{"container_pressure_io_waiting_seconds_total", "Time some task waited for input or output.", counter, nil, pressureMetric(ioPSI, false)},
		{"container_pressure_memory_stalled_seconds_total", "Time all tasks waited for memory.", counter, nil, pressureMetric(memoryPSI, true)},
		{"container_pressure_memory_waiting_seconds_total", "Time some task waited for memory.", counter, nil, pressureMetric(memoryPSI, false)},
		{"container_processes", "Processes in the container.", gauge, nil, func(x *sample) []point { return one(x.processes.Processes) }},
		{"container_sockets", "Open sockets.", gauge, nil, func(x *sample) []point { return one(x.processes.Sockets) }},
		{"container_spec_cpu_period", "The container's processor period.", gauge, nil, func(x *sample) []point { return one(orDefault(x.limits.CPUPeriod, 100_000)) }},
		{"container_spec_cpu_quota", "The container's processor quota.", gauge, nil, func(x *sample) []point {
			if x.limits.CPUQuota <= 0 {
				return nil
			}
			return one(uint64(x.limits.CPUQuota))
		}},
		{"container_spec_cpu_shares", "The container's share of processors.", gauge, nil, func(x *sample) []point { return one(orDefault(x.limits.CPUShares, 1024)) }},
		{"container_spec_memory_limit_bytes", "The container's memory limit, 0 for none.", gauge, nil, func(x *sample) []point { return one(orDefault(x.limits.Memory, 0)) }},
		{"container_spec_memory_reservation_limit_bytes", "The container's memory reservation, 0 for none.", gauge, nil, func(x *sample) []point { return one(orDefault(x.limits.MemoryReservation, 0)) }},
		{"container_spec_memory_swap_limit_bytes", "The container's limit of memory and swap, 0 for none.", gauge, nil, func(x *sample) []point { return one(orDefault(x.limits.MemorySwap, 0)) }},
		{"container_start_time_seconds", "When the container was started, as Unix time.", gauge, nil, func(x *sample) []point { return one(uint64(x.Started.Unix())) }},
		{"container_threads", "Threads in the container.", gauge, nil, func(x *sample) []point { return one(x.processes.Threads) }},
		{"container_threads_max", "The container's limit of threads, 0 for none.", gauge, nil, func(x *sample) []point {
			if x.Pids == nil {
				return one(0)
			}
			return one(limit(x.Pids.Limit))
		}},
		{"container_ulimits_soft", "The first process's soft limits.", gauge, []string{"ulimit"}, func(x *sample) []point { return []point{{x.processes.OpenFiles, []string{"max_open_files"}}} }},
	}
})

// podMetrics are what a pod's containers share: the network.
var podMetrics = sync.OnceValue(func() (list []metric) {
	add := func(name, help string, read func(engine.InterfaceStats) uint64) {
		list = append(list, metric{"container_network_" + name + "_total", help, counter, []string{"interface"}, networkMetric(read)})
	}
	add("receive_bytes", "Bytes received.", func(n engine.InterfaceStats) uint64 { return n.RxBytes })
	add("receive_errors", "Errors while receiving.", func(n engine.InterfaceStats) uint64 { return n.RxErrors })
	add("receive_packets_dropped", "Packets dropped while receiving.", func(n engine.InterfaceStats) uint64 { return n.RxDropped })
	add("receive_packets", "Packets received.", func(n engine.InterfaceStats) uint64 { return n.RxPackets })
	add("transmit_bytes", "Bytes sent.", func(n engine.InterfaceStats) uint64 { return n.TxBytes })
	add("transmit_errors", "Errors while sending.", func(n engine.InterfaceStats) uint64 { return n.TxErrors })
	add("transmit_packets_dropped", "Packets dropped while sending.", func(n engine.InterfaceStats) uint64 { return n.TxDropped })
	add("transmit_packets", "Packets sent.", func(n engine.InterfaceStats) uint64 { return n.TxPackets })
	return list
})

func onDevice(v uint64) []point { return []point{{v, []string{"overlay"}}} }

// deviceUsage is what was moved, by device and operation.
func deviceUsage(x *sample) (out []point) {
	if x.IO == nil {
		return nil
	}
	for _, e := range x.IO.ServiceBytes {
		major, minor := strconv.FormatUint(e.Major, 10), strconv.FormatUint(e.Minor, 10)
		out = append(out, point{e.Value, []string{deviceName(e), major, minor, e.Op}})
	}
	return out
}

// pageFaults counts those that needed the disk, and all.
func pageFaults(x *sample) []point {
	if x.Memory == nil {
		return nil
	}
	m := x.Memory
	return []point{
		{detail(m, "pgfault"), []string{"pgfault", "container"}}, {detail(m, "pgmajfault"), []string{"pgmajfault", "container"}},
		{detail(m, "total_pgfault", "pgfault"), []string{"pgfault", "hierarchy"}}, {detail(m, "total_pgmajfault", "pgmajfault"), []string{"pgmajfault", "hierarchy"}},
	}
}

func orDefault(v, other int64) uint64 {
	if v <= 0 {
		v = other
	}
	return uint64(v)
}
