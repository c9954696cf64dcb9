package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"cale/runtime"
	"cale/runtime/cgroup"
)

// event is one line of `events`, as runc prints it.
type event struct {
	Type string      `json:"type"`
	ID   string      `json:"id"`
	Data *eventStats `json:"data,omitempty"`
}

type eventStats struct {
	CPU     eventCPU                    `json:"cpu"`
	CPUSet  eventCPUSet                 `json:"cpuset"`
	Memory  eventMemory                 `json:"memory"`
	Pids    eventPids                   `json:"pids"`
	Blkio   eventBlkio                  `json:"blkio"`
	Hugetlb map[string]eventHuge        `json:"hugetlb"`
	Network []any                       `json:"network_interfaces"`
	Rdma    map[string]cgroup.RdmaStats `json:"rdma,omitempty"`
}

type eventCPU struct {
	Usage struct {
		Total  uint64   `json:"total"`
		PerCPU []uint64 `json:"percpu,omitempty"`
		Kernel uint64   `json:"kernel"`
		User   uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods"`
		ThrottledPeriods uint64 `json:"throttledPeriods"`
		ThrottledTime    uint64 `json:"throttledTime"`
	} `json:"throttling"`
	PSI *cgroup.PSI `json:"psi,omitempty"`
}

type eventCPUSet struct {
	CPUs []uint16 `json:"cpus,omitempty"`
	Mems []uint16 `json:"mems,omitempty"`
}

type eventUsage struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage"`
	Max     uint64 `json:"max"`
	Failcnt uint64 `json:"failcnt"`
}

type eventMemory struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     eventUsage        `json:"usage"`
	Swap      eventUsage        `json:"swap"`
	Kernel    eventUsage        `json:"kernel"`
	KernelTCP eventUsage        `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
	PSI       *cgroup.PSI       `json:"psi,omitempty"`
}

type eventPids struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"`
}

type eventBlkio struct {
	ServiceBytes []cgroup.IOEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []cgroup.IOEntry `json:"ioServicedRecursive,omitempty"`
	PSI          *cgroup.PSI      `json:"psi,omitempty"`
}

type eventHuge struct {
	Usage   uint64 `json:"usage"`
	Max     uint64 `json:"max"`
	Failcnt uint64 `json:"failcnt"`
}

func newEventStats(s *cgroup.Stats) *eventStats {
	var e eventStats
	if c := s.CPU; c != nil {
		e.CPU.Usage.Total, e.CPU.Usage.User, e.CPU.Usage.Kernel, e.CPU.Usage.PerCPU = c.Total, c.User, c.System, c.PerCPU
		e.CPU.Throttling.Periods = c.Periods
		e.CPU.Throttling.ThrottledPeriods, e.CPU.Throttling.ThrottledTime = c.ThrottledPeriods, c.ThrottledTime
		e.CPU.PSI = c.PSI
	}
	if c := s.CPUset; c != nil {
		e.CPUSet = eventCPUSet{numbers(c.CPUs), numbers(c.Mems)}
	}
	if m := s.Memory; m != nil {
		e.Memory = eventMemory{
			Cache: m.Cache, Raw: m.Stat, PSI: m.PSI,
			Usage:     eventUsage{Limit: m.Limit, Usage: m.Usage, Max: m.MaxUsage, Failcnt: m.Failcnt},
			Swap:      eventUsage{Limit: m.SwapLimit, Usage: m.SwapUsage, Max: m.SwapMax, Failcnt: m.SwapFails},
			Kernel:    eventUsage{Usage: m.Kernel},
			KernelTCP: eventUsage{Usage: m.KernelTCP},
		}
	}
	if s.Pids != nil {
		e.Pids = eventPids{s.Pids.Current, s.Pids.Limit}
	}
	if s.IO != nil {
		e.Blkio = eventBlkio{s.IO.ServiceBytes, s.IO.Serviced, s.IO.PSI}
	}
	e.Hugetlb = map[string]eventHuge{}
	for size, h := range s.Hugetlb {
		e.Hugetlb[size] = eventHuge{h.Usage, h.MaxUsage, h.Failcnt}
	}
	e.Rdma = s.Rdma
	return &e
}

// numbers are those of a list as the kernel writes it: "0-3,7". What isn't one ends it.
func numbers(list string) (all []uint16) {
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		to, lastErr := strconv.ParseUint(last, 10, 16)
		if err != nil || lastErr != nil {
			break
		}
		for n := from; n <= to; n++ {
			all = append(all, uint16(n))
		}
	}
	return all
}

func cmdEvents(a *app, args []string) error {
	var once bool
	interval := "5s"
	var f flags
	f.bool(&once, "stats")
	f.str(&interval, "interval")
	args, err := f.parse(args, true)
	if err != nil {
		return err
	}
	if err := exactly("events", args, 1, 1); err != nil {
		return err
	}
	every, err := time.ParseDuration(interval)
	if err != nil || every <= 0 {
		return fmt.Errorf("duration interval must be greater than 0")
	}
	c, err := runtime.Load(a.root, args[0])
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	stats := func() error {
		s, err := c.Stats()
		if err != nil {
			return err
		}
		return out.Encode(event{Type: "stats", ID: c.ID(), Data: newEventStats(s)})
	}
	if st, err := c.Status(); err != nil || st == runtime.Stopped {
		return fmt.Errorf("container with id %s is not running", c.ID())
	}
	if once {
		return stats()
	}
	return watch(c, every, out, stats)
}

// watch prints statistics and out-of-memory events until the container has stopped.
func watch(c *runtime.Container, every time.Duration, out *json.Encoder, stats func() error) error {
	g, err := c.Cgroup()
	if err != nil {
		return err
	}
	var oom <-chan struct{}
	if g != nil {
		events, stop, err := g.WatchOOM()
		if err != nil {
			return err
		}
		defer stop()
		oom = events
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	alive := time.NewTicker(200 * time.Millisecond)
	defer alive.Stop()
	for {
		select {
		case _, ok := <-oom:
			if !ok {
				return nil
			}
			if err := out.Encode(event{Type: "oom", ID: c.ID()}); err != nil {
				return err
			}
		case <-tick.C:
			if err := stats(); err != nil {
				return err
			}
		case <-alive.C:
			if st, err := c.Status(); err != nil || st == runtime.Stopped {
				return nil
			}
		}
	}
}
