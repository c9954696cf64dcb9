package cgroup

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

func statsV2(dir string) (*Stats, error) {
	r := reader{}
	controllers, err := read(dir, "cgroup.controllers")
	if err != nil {
		return nil, err
	}
	has := make(map[string]bool)
	for name := range strings.FieldsSeq(controllers) {
		has[name] = true
	}
	s := &Stats{V2: true, CPU: &CPUStats{PSI: r.psi(dir, "cpu.pressure")}}
	// cpu.stat has the times also without the cpu controller.
	r.keyed(dir, "cpu.stat", func(key string, n uint64) {
		switch key {
		case "usage_usec":
			s.CPU.Total = n * 1000
		case "user_usec":
			s.CPU.User = n * 1000
		case "system_usec":
			s.CPU.System = n * 1000
		case "nr_periods":
			s.CPU.Periods = n
		case "nr_throttled":
			s.CPU.ThrottledPeriods = n
		case "throttled_usec":
			s.CPU.ThrottledTime = n * 1000
		case "nr_bursts":
			s.CPU.Bursts = n
		case "burst_usec":
			s.CPU.BurstTime = n * 1000
		}
	})
	if has["memory"] {
		s.Memory = r.memoryV2(dir)
	}
	if has["pids"] {
		s.Pids = r.pids(dir)
	}
	if has["io"] {
		s.IO = r.ioStat(dir)
	}
	if has["cpuset"] {
		s.CPUset = &CPUsetStats{
			CPUs: r.text(dir, "cpuset.cpus.effective"), Mems: r.text(dir, "cpuset.mems.effective"),
		}
	}
	if has["hugetlb"] {
		s.Hugetlb = r.hugetlb(dir, ".current", "", "")
		for size, h := range s.Hugetlb {
			r.keyed(dir, "hugetlb."+size+".events", func(key string, n uint64) {
				if key == "max" {
					h.Failcnt = n
				}
			})
			s.Hugetlb[size] = h
		}
	}
	if has["rdma"] {
		s.Rdma = r.rdma(dir)
	}
	return s, r.err
}

func (r *reader) memoryV2(dir string) *MemoryStats {
	m := &MemoryStats{
		Usage:     r.number(dir, "memory.current"),
		MaxUsage:  r.number(dir, "memory.peak"),
		Limit:     r.number(dir, "memory.max"),
		SwapUsage: r.number(dir, "memory.swap.current"),
		SwapLimit: r.number(dir, "memory.swap.max"),
		SwapMax:   r.number(dir, "memory.swap.peak"),
		Stat:      make(map[string]uint64, 64),
		PSI:       r.psi(dir, "memory.pressure"),
	}
	r.keyed(dir, "memory.stat", func(key string, n uint64) { m.Stat[key] = n })
	m.Cache, m.Kernel, m.KernelTCP = m.Stat["file"], m.Stat["kernel"], m.Stat["sock"]
	r.keyed(dir, "memory.events", func(key string, n uint64) {
		switch key {
		case "max":
			m.Failcnt = n
		case "oom_kill":
			m.OOMKills = n
		}
	})
	r.keyed(dir, "memory.swap.events", func(key string, n uint64) {
		if key == "fail" {
			m.SwapFails = n
		}
	})
	return m
}

// ioStat reads lines of "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func (r *reader) ioStat(dir string) *IOStats {
	io := &IOStats{PSI: r.psi(dir, "io.pressure")}
	for line := range strings.Lines(r.text(dir, "io.stat")) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, ok := parseDevice(f[0])
		if !ok {
			continue
		}
		for _, kv := range f[1:] {
			key, v, _ := strings.Cut(kv, "=")
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				continue
			}
			switch key {
			case "rbytes":
				io.ServiceBytes = append(io.ServiceBytes, IOEntry{major, minor, "Read", n})
			case "wbytes":
				io.ServiceBytes = append(io.ServiceBytes, IOEntry{major, minor, "Write", n})
			case "dbytes":
				io.ServiceBytes = append(io.ServiceBytes, IOEntry{major, minor, "Discard", n})
			case "rios":
				io.Serviced = append(io.Serviced, IOEntry{major, minor, "Read", n})
			case "wios":
				io.Serviced = append(io.Serviced, IOEntry{major, minor, "Write", n})
			case "dios":
				io.Serviced = append(io.Serviced, IOEntry{major, minor, "Discard", n})
			}
		}
	}
	return io
}

// psi reads lines of "some avg10=0.00 avg60=0.00 avg300=0.00 total=0". Without the file, or with pressure counting
// switched off (the read then fails), there is none.
func (r *reader) psi(dir, name string) *PSI {
	text, err := read(dir, name)
	if err != nil {
		return nil
	}
	p := &PSI{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		data := &p.Some
		if f[0] == "full" {
			data = &p.Full
		}
		for _, kv := range f[1:] {
			key, v, _ := strings.Cut(kv, "=")
			switch key {
			case "avg10":
				data.Avg10, _ = strconv.ParseFloat(v, 64)
			case "avg60":
				data.Avg60, _ = strconv.ParseFloat(v, 64)
			case "avg300":
				data.Avg300, _ = strconv.ParseFloat(v, 64)
			case "total":
				data.Total, _ = strconv.ParseUint(v, 10, 64)
			}
		}
	}
	return p
}

// pageSizes are the kernel's huge page sizes, in the form the hugetlb controller's files have.
var pageSizes = sync.OnceValue(func() []string {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	var sizes []string
	for _, e := range entries {
		var kb uint64
		if _, err := fmt.Sscanf(e.Name(), "hugepages-%dkB", &kb); err != nil {
			continue
		}
		switch {
		case kb >= 1<<20:
			sizes = append(sizes, fmt.Sprintf("%dGB", kb>>20))
		case kb >= 1<<10:
			sizes = append(sizes, fmt.Sprintf("%dMB", kb>>10))
		default:
			sizes = append(sizes, fmt.Sprintf("%dKB", kb))
		}
	}
	return sizes
})
