package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// limitV2 translates the specification's limits, which are v1's, and then writes res.Unified as it is.
func (c *Cgroup) limitV2(res *specs.LinuxResources) error {
	w := &writer{c: c}
	w.memoryV2(res.Memory)
	w.cpuV2(res.CPU)
	w.cpuset(res.CPU)
	if res.Pids != nil && res.Pids.Limit != nil {
		w.set("pids", "pids.max", pidsMax(*res.Pids.Limit))
	}
	w.io(res.BlockIO)
	for _, h := range res.HugepageLimits {
		w.hugetlb(h, ".max")
	}
	if n := res.Network; n != nil && (value32(n.ClassID) != 0 || len(n.Priorities) > 0) {
		w.fail(errors.New("resources.network (net_cls, net_prio) does not exist in cgroup v2"))
	}
	w.rdma(res.Rdma)
	for _, file := range slices.Sorted(maps.Keys(res.Unified)) {
		w.unified(file, res.Unified[file])
	}
	return w.err
}

func value32(p *uint32) uint32 {
	if p == nil {
		return 0
	}
	return *p
}

func (w *writer) unified(file, v string) {
	controller, _, ok := strings.Cut(file, ".")
	if !ok || strings.ContainsAny(file, "/\x00") {
		w.fail(fmt.Errorf("resources.unified %q: must be the name of a cgroup file", file))
		return
	}
	// Several lines are several settings (io.max of two disks): the kernel takes one a write.
	for line := range strings.Lines(v) {
		w.set(controller, file, strings.TrimSuffix(line, "\n"))
	}
}

func (w *writer) memoryV2(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	limit, swap := value(m.Limit), value(m.Swap)
	if m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate {
		w.checkUsage(limit, swap)
	}
	only, err := SwapOnly(limit, swap)
	w.fail(err)
	if swap != 0 || only != 0 {
		err := w.try("memory", "memory.swap.max", count(only))
		// A kernel without swap has nothing to lift or to forbid.
		if !(errors.Is(err, unix.ENOENT) && only <= 0) {
			w.fail(err)
		}
	}
	if limit != 0 {
		w.set("memory", "memory.max", count(limit))
	}
	if n := value(m.Reservation); n != 0 {
		w.set("memory", "memory.low", count(n))
	}
	if value(m.KernelTCP) != 0 {
		w.fail(errors.New("memory.kernelTCP does not exist in cgroup v2"))
	}
	if m.Swappiness != nil {
		w.fail(errors.New("memory.swappiness does not exist in cgroup v2"))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		w.fail(errors.New("memory.disableOOMKiller does not exist in cgroup v2"))
	}
}

// checkUsage refuses a limit below what is in use, which the kernel would enforce by killing.
func (w *writer) checkUsage(limit, swap int64) {
	dir, _ := w.c.dir("")
	usage, err := optional(number(dir, "memory.current"))
	if err != nil {
		w.fail(err)
		return
	}
	swapUsage, err := optional(number(dir, "memory.swap.current"))
	if err != nil {
		w.fail(err)
		return
	}
	if limit > 0 && uint64(limit) < usage {
		w.fail(fmt.Errorf("memory.limit %d is below the usage of %d", limit, usage))
	}
	if swap > 0 && uint64(swap) < usage+swapUsage {
		w.fail(fmt.Errorf("memory.swap %d is below the usage of %d", swap, usage+swapUsage))
	}
}

// SwapOnly converts v1's limit on memory and swap together to v2's on swap alone. 0 is "not given" in v1's terms,
// -1 "no limit".
func SwapOnly(limit, swap int64) (int64, error) {
	switch {
	case limit == -1 && swap == 0:
		return -1, nil // as in v1, where lifting the one lifts the other
	case swap == 0 || swap == -1:
		return swap, nil
	case limit == 0 || limit == -1:
		return 0, errors.New("memory.swap needs memory.limit (it counts both)")
	case limit < 0:
		return 0, fmt.Errorf("memory.limit %d: must not be negative", limit)
	case swap < limit:
		return 0, fmt.Errorf("memory.swap %d: must not be less than memory.limit %d (it counts both)", swap, limit)
	}
	return swap - limit, nil
}

func (w *writer) cpuV2(cpu *specs.LinuxCPU) {
	if cpu == nil {
		return
	}
	if cpu.Idle != nil {
		w.set("cpu", "cpu.idle", strconv.FormatInt(*cpu.Idle, 10))
	}
	// An idle group has no weight and refuses one.
	if n := value(cpu.Shares); n != 0 && value(cpu.Idle) != 1 {
		w.set("cpu", "cpu.weight", strconv.FormatUint(Weight(n), 10))
	}
	burst := ""
	if cpu.Burst != nil {
		burst = strconv.FormatUint(*cpu.Burst, 10)
		err := w.try("cpu", "cpu.max.burst", burst)
		if err == nil {
			burst = ""
		} else if !errors.Is(err, unix.EINVAL) || value(cpu.Quota) == 0 {
			w.fail(err)
		}
	}
	if quota, period := value(cpu.Quota), value(cpu.Period); quota != 0 || period != 0 {
		v := w.presentQuota()
		if quota != 0 {
			v = count(quota)
		}
		if period != 0 {
			v += " " + strconv.FormatUint(period, 10)
		}
		w.set("cpu", "cpu.max", v)
	}
	if burst != "" {
		w.set("cpu", "cpu.max.burst", burst)
	}
	if value(cpu.RealtimePeriod) != 0 || value(cpu.RealtimeRuntime) != 0 {
		w.fail(errors.New("real-time limits (cpu.realtimePeriod, cpu.realtimeRuntime) do not exist in cgroup v2"))
	}
}

// presentQuota keeps the quota when only the period changes: cpu.max can't be given the period alone.
func (w *writer) presentQuota() string {
	dir, _ := w.c.dir("")
	now, err := read(dir, "cpu.max")
	quota, _, _ := strings.Cut(now, " ")
	if err != nil || quota == "" {
		return "max"
	}
	return quota
}

// Weight converts v1's cpu.shares (2 to 262144, usually 1024) to v2's cpu.weight (1 to 10000, usually 100), by the
// curve runc and crun agreed on: it maps the ends and the usual values onto each other. 0 stays 0, "not given".
func Weight(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// ioWeight converts v1's blkio.weight (10 to 1000) to io.weight (1 to 10000), linearly.
func ioWeight(w uint16) uint64 {
	if w < 10 {
		return 1
	}
	return 1 + (uint64(w)-10)*9999/990
}

func (w *writer) io(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	if value(b.LeafWeight) != 0 {
		w.fail(errors.New("blockIO.leafWeight does not exist in cgroup v2"))
	}
	// bfq takes v1's range; without it there may be io.cost, which takes v2's.
	weight := func(prefix string, n uint16) {
		err := error(unix.ENOENT)
		if dir, ok := w.c.dir(""); ok && exists(dir+"/io.bfq.weight") {
			err = w.try("io", "io.bfq.weight", prefix+strconv.Itoa(int(n)))
		}
		if errors.Is(err, unix.ENOENT) {
			err = w.try("io", "io.weight", prefix+strconv.FormatUint(ioWeight(n), 10))
		}
		w.fail(err)
	}
	if n := value(b.Weight); n != 0 {
		weight("", n)
	}
	for _, d := range b.WeightDevice {
		if value(d.LeafWeight) != 0 {
			w.fail(errors.New("blockIO.weightDevice.leafWeight does not exist in cgroup v2"))
		}
		if n := value(d.Weight); n != 0 {
			weight(fmt.Sprintf("%d:%d ", d.Major, d.Minor), n)
		}
	}
	for _, t := range []struct {
		key  string
		list []specs.LinuxThrottleDevice
	}{
		{"rbps", b.ThrottleReadBpsDevice}, {"wbps", b.ThrottleWriteBpsDevice},
		{"riops", b.ThrottleReadIOPSDevice}, {"wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.list {
			rate := "max" // v1 lifts a limit with 0, which io.max refuses
			if d.Rate != 0 {
				rate = strconv.FormatUint(d.Rate, 10)
			}
			w.set("io", "io.max", fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, t.key, rate))
		}
	}
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil
}
