package cgroup

// Stats are the counters of a group. A part is nil where no controller keeps it.
type Stats struct {
	CPU     *CPUStats               `json:"cpu,omitempty"`
	Memory  *MemoryStats            `json:"memory,omitempty"`
	Pids    *PidsStats              `json:"pids,omitempty"`
	IO      *IOStats                `json:"io,omitempty"`
	Hugetlb map[string]HugetlbStats `json:"hugetlb,omitempty"`
	Rdma    map[string]RdmaStats    `json:"rdma,omitempty"`
	CPUset  *CPUsetStats            `json:"cpuset,omitempty"`
	// V2 says that the numbers come from cgroup v2, whose memory.stat has other names.
	V2 bool `json:"v2,omitempty"`
}

// CPUStats are times in nanoseconds.
type CPUStats struct {
	Total            uint64   `json:"total"`
	User             uint64   `json:"user"`
	System           uint64   `json:"system"`
	PerCPU           []uint64 `json:"percpu,omitempty"`
	Periods          uint64   `json:"periods"`
	ThrottledPeriods uint64   `json:"throttledPeriods"`
	ThrottledTime    uint64   `json:"throttledTime"`
	Bursts           uint64   `json:"bursts,omitempty"`
	BurstTime        uint64   `json:"burstTime,omitempty"`
	PSI              *PSI     `json:"psi,omitempty"`
}

// MemoryStats are bytes. A limit that isn't set is math.MaxUint64.
type MemoryStats struct {
	Usage     uint64 `json:"usage"`
	MaxUsage  uint64 `json:"maxUsage"`
	Limit     uint64 `json:"limit"`
	Failcnt   uint64 `json:"failcnt"`
	Cache     uint64 `json:"cache"`
	SwapUsage uint64 `json:"swapUsage"` // v1: memory and swap together
	SwapLimit uint64 `json:"swapLimit"` // v1: memory and swap together
	SwapMax   uint64 `json:"swapMax"`
	SwapFails uint64 `json:"swapFailcnt"`
	Kernel    uint64 `json:"kernel"`
	KernelTCP uint64 `json:"kernelTCP"`
	OOMKills  uint64 `json:"oomKills"`
	// Stat is memory.stat as the kernel names it.
	Stat map[string]uint64 `json:"stat,omitempty"`
	PSI  *PSI              `json:"psi,omitempty"`
}

// PidsStats counts tasks. Limit 0 means none.
type PidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"`
}

// IOEntry is one counter of one device; Op is "Read", "Write", "Sync", "Async", "Discard" or "Total".
type IOEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

// IOStats are v1's blkio throttle or bfq counters, or v2's io.stat.
type IOStats struct {
	ServiceBytes []IOEntry `json:"serviceBytes,omitempty"`
	Serviced     []IOEntry `json:"serviced,omitempty"`
	PSI          *PSI      `json:"psi,omitempty"`
}

// HugetlbStats are bytes, per page size.
type HugetlbStats struct {
	Usage    uint64 `json:"usage"`
	MaxUsage uint64 `json:"max,omitempty"`
	Failcnt  uint64 `json:"failcnt"`
}

// RdmaStats counts handles and objects of one device.
type RdmaStats struct {
	Handles uint64 `json:"handles"`
	Objects uint64 `json:"objects"`
}

// CPUsetStats are the processors and memory nodes in effect, as the kernel writes lists.
type CPUsetStats struct {
	CPUs string `json:"cpus"`
	Mems string `json:"mems"`
}

// PSI is one resource's pressure: how long tasks waited for it. It is nil where the kernel doesn't count it, and where
// the group is in no cgroup2 hierarchy.
type PSI struct {
	Some PSIData `json:"some"`
	Full PSIData `json:"full"`
}

// PSIData are percentages over the last 10, 60 and 300 seconds, and the total in microseconds.
type PSIData struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}
