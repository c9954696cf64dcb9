package cgroup

import (
	"strconv"
	"strings"
)

// Stats reads the counters the mounted controllers have.
func (c *Cgroup) Stats() (*Stats, error) {
	if c.v2 {
		return statsV2(c.groups[0].dir)
	}
	s := &Stats{}
	r := reader{}
	if dir, ok := c.dir("cpuacct"); ok {
		s.CPU = &CPUStats{}
		r.cpuV1(dir, s.CPU)
	}
	if dir, ok := c.dir("cpu"); ok {
		if s.CPU == nil {
			s.CPU = &CPUStats{}
		}
		r.keyed(dir, "cpu.stat", func(key string, n uint64) {
			switch key {
			case "nr_periods":
				s.CPU.Periods = n
			case "nr_throttled":
				s.CPU.ThrottledPeriods = n
			case "throttled_time":
				s.CPU.ThrottledTime = n
			case "nr_bursts":
				s.CPU.Bursts = n
			case "burst_time":
				s.CPU.BurstTime = n
			}
		})
	}
	if dir, ok := c.dir("memory"); ok {
		s.Memory = r.memoryV1(dir)
	}
	if dir, ok := c.dir("pids"); ok {
		s.Pids = r.pids(dir)
	}
	if dir, ok := c.dir("blkio"); ok {
		s.IO = r.blkio(dir)
	}
	if dir, ok := c.dir("cpuset"); ok {
		s.CPUset = &CPUsetStats{
			CPUs: r.text(dir, "cpuset.effective_cpus"), Mems: r.text(dir, "cpuset.effective_mems"),
		}
	}
	if dir, ok := c.dir("hugetlb"); ok {
		s.Hugetlb = r.hugetlb(dir, ".usage_in_bytes", ".max_usage_in_bytes", ".failcnt")
	}
	if dir, ok := c.dir("rdma"); ok {
		s.Rdma = r.rdma(dir)
	}
	c.pressure(s)
	return s, r.err
}

// pressure is cgroup2's, and counted there whichever hierarchy has the controllers.
func (c *Cgroup) pressure(s *Stats) {
	dir, ok := c.dir("")
	if !ok {
		return
	}
	r := reader{}
	if s.CPU != nil {
		s.CPU.PSI = r.psi(dir, "cpu.pressure")
	}
	if s.Memory != nil {
		s.Memory.PSI = r.psi(dir, "memory.pressure")
	}
	if s.IO != nil {
		s.IO.PSI = r.psi(dir, "io.pressure")
	}
}

// reader reads counters and keeps the first error; a counter this kernel doesn't have is 0.
type reader struct{ err error }

func (r *reader) number(dir, name string) uint64 {
	n, err := optional(number(dir, name))
	r.fail(err)
	return n
}

func (r *reader) text(dir, name string) string {
	s, err := read(dir, name)
	if !isGone(err) {
		r.fail(err)
	}
	return s
}

func (r *reader) keyed(dir, name string, f func(string, uint64)) { keyed(r.text(dir, name), f) }

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) cpuV1(dir string, s *CPUStats) {
	s.Total = r.number(dir, "cpuacct.usage")
	s.User = r.number(dir, "cpuacct.usage_user")
	s.System = r.number(dir, "cpuacct.usage_sys")
	for f := range strings.FieldsSeq(r.text(dir, "cpuacct.usage_percpu")) {
		if n, err := strconv.ParseUint(f, 10, 64); err == nil {
			s.PerCPU = append(s.PerCPU, n)
		}
	}
}

func (r *reader) memoryV1(dir string) *MemoryStats {
	m := &MemoryStats{
		Usage:     r.number(dir, "memory.usage_in_bytes"),
		MaxUsage:  r.number(dir, "memory.max_usage_in_bytes"),
		Limit:     r.number(dir, "memory.limit_in_bytes"),
		Failcnt:   r.number(dir, "memory.failcnt"),
		SwapUsage: r.number(dir, "memory.memsw.usage_in_bytes"),
		SwapLimit: r.number(dir, "memory.memsw.limit_in_bytes"),
		SwapMax:   r.number(dir, "memory.memsw.max_usage_in_bytes"),
		SwapFails: r.number(dir, "memory.memsw.failcnt"),
		Kernel:    r.number(dir, "memory.kmem.usage_in_bytes"),
		KernelTCP: r.number(dir, "memory.kmem.tcp.usage_in_bytes"),
		Stat:      make(map[string]uint64, 48),
	}
	r.keyed(dir, "memory.stat", func(key string, n uint64) { m.Stat[key] = n })
	m.Cache = m.Stat["cache"]
	r.keyed(dir, "memory.oom_control", func(key string, n uint64) {
		if key == "oom_kill" {
			m.OOMKills = n
		}
	})
	return m
}

// pids is the same in v1 and v2.
func (r *reader) pids(dir string) *PidsStats {
	p := &PidsStats{Current: r.number(dir, "pids.current"), Limit: r.number(dir, "pids.max")}
	if p.Limit == noLimit {
		p.Limit = 0
	}
	return p
}

const noLimit = 1<<64 - 1

func (r *reader) blkio(dir string) *IOStats {
	// bfq counts only where it is the scheduler; throttling counts always.
	for _, kind := range []string{"bfq.", "throttle."} {
		io := &IOStats{
			ServiceBytes: r.devices(dir, "blkio."+kind+"io_service_bytes_recursive"),
			Serviced:     r.devices(dir, "blkio."+kind+"io_serviced_recursive"),
		}
		if len(io.ServiceBytes) > 0 {
			return io
		}
	}
	return &IOStats{}
}

// devices reads lines of "8:0 Read 4096"; the last line, the total of all devices, has no device.
func (r *reader) devices(dir, name string) []IOEntry {
	var list []IOEntry
	for line := range strings.Lines(r.text(dir, name)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		major, minor, ok := parseDevice(f[0])
		n, err := strconv.ParseUint(f[2], 10, 64)
		if ok && err == nil {
			list = append(list, IOEntry{major, minor, f[1], n})
		}
	}
	return list
}

func parseDevice(s string) (major, minor uint64, ok bool) {
	a, b, _ := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	return major, minor, err1 == nil && err2 == nil
}

func (r *reader) hugetlb(dir, usage, peak, failed string) map[string]HugetlbStats {
	stats := make(map[string]HugetlbStats)
	for _, size := range pageSizes() {
		s := HugetlbStats{Usage: r.number(dir, "hugetlb."+size+usage)}
		if peak != "" {
			s.MaxUsage = r.number(dir, "hugetlb."+size+peak)
		}
		if failed != "" {
			s.Failcnt = r.number(dir, "hugetlb."+size+failed)
		}
		stats[size] = s
	}
	return stats
}

// rdma reads lines of "mlx4_0 hca_handle=2 hca_object=2000".
func (r *reader) rdma(dir string) map[string]RdmaStats {
	stats := make(map[string]RdmaStats)
	for line := range strings.Lines(r.text(dir, "rdma.current")) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var s RdmaStats
		for _, kv := range f[1:] {
			key, v, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseUint(v, 10, 64)
			switch key {
			case "hca_handle":
				s.Handles = n
			case "hca_object":
				s.Objects = n
			}
		}
		stats[f[0]] = s
	}
	return stats
}
