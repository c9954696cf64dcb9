package engine

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cale/runtime/cgroup"
)

// Stats reads what a running container has used.
func (e *Engine) Stats(ctx context.Context, ref string) (Stats, error) {
	c, err := e.find(ref)
	if err != nil {
		return Stats{}, err
	}
	r, err := c.running()
	if err != nil {
		return Stats{}, err
	}
	raw, err := r.shim.Stats(ctx, c.id)
	if err != nil {
		if gone(err) {
			return Stats{}, conflict("container %s is not running", c.id)
		}
		return Stats{}, err
	}
	s := statsOf(raw)
	s.Read = time.Now()
	s.CPU.System, s.CPU.Online = hostCPUTime(), uint32(hostCPUs())
	s.Networks = Interfaces(r.pid)
	return s, nil
}

func statsOf(raw *cgroup.Stats) (s Stats) {
	if c := raw.CPU; c != nil {
		s.CPU = CPUStats{Total: c.Total, Kernel: c.System, User: c.User, PerCPU: c.PerCPU, Periods: c.Periods, Throttled: c.ThrottledPeriods, ThrottledFor: c.ThrottledTime}
		s.Pressure.CPU = c.PSI
	}
	if m := raw.Memory; m != nil {
		s.Memory = MemoryStats{Usage: m.Usage, MaxUsage: m.MaxUsage, Limit: m.Limit, Failcnt: m.Failcnt, Detail: m.Stat}
		s.Pressure.Memory = m.PSI
		if host := uint64(hostMemory()); s.Memory.Limit == math.MaxUint64 || host > 0 && s.Memory.Limit > host {
			s.Memory.Limit = host
		}
	}
	if p := raw.Pids; p != nil {
		s.Pids = PidsStats{Current: p.Current, Limit: p.Limit}
	}
	if raw.IO != nil {
		for _, x := range raw.IO.ServiceBytes {
			s.Block = append(s.Block, BlockIO{Major: x.Major, Minor: x.Minor, Op: x.Op, Count: x.Value})
		}
		for _, x := range raw.IO.Serviced {
			s.BlockOps = append(s.BlockOps, BlockIO{Major: x.Major, Minor: x.Minor, Op: x.Op, Count: x.Value})
		}
		s.Pressure.IO = raw.IO.PSI
	}
	return s
}

// hostCPUTime is all processors' time so far in nanoseconds, idle time too: percentages are made against it.
func hostCPUTime() uint64 {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	f := strings.Fields(line)
	var ticks uint64
	for i := 1; i < len(f) && i <= 8; i++ { // guest time is part of user time already
		n, _ := strconv.ParseUint(f[i], 10, 64)
		ticks += n
	}
	return ticks * uint64(time.Second) / clockTicks
}

const clockTicks = 100 // USER_HZ, the same on every architecture Go runs on

// Interfaces reads the counters of a process's network namespace.
func Interfaces(pid int) map[string]InterfaceStats {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return nil
	}
	out := map[string]InterfaceStats{}
	for line := range strings.Lines(string(raw)) {
		name, rest, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		f := strings.Fields(rest)
		if !ok || len(f) < 16 || name == "lo" {
			continue
		}
		n := make([]uint64, 16)
		for i := range n {
			n[i], _ = strconv.ParseUint(f[i], 10, 64)
		}
		out[name] = InterfaceStats{RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3], TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11]}
	}
	return out
}

// bootTime is when the machine was started.
var bootTime = sync.OnceValue(func() time.Time {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(string(raw)) {
		if s, ok := strings.CutPrefix(line, "btime "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
			return time.Unix(n, 0)
		}
	}
	return time.Time{}
})

// ownerOf is the user a file belongs to.
func ownerOf(st os.FileInfo) (int, bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(sys.Uid), true
}
