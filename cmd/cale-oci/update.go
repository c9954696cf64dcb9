package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"cale/runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// updateFlags are limits as text; "" is one that stays as it is.
type updateFlags struct {
	resources, blkio, period, quota, burst, shares, rtPeriod, rtRuntime, cpus, mems string
	kernel, kernelTCP, memory, reservation, swap, pids, idle                        string
	l3, membw                                                                       string
}

func (u *updateFlags) add(f *flags) {
	f.str(&u.resources, "resources", "r")
	f.str(&u.blkio, "blkio-weight")
	f.str(&u.period, "cpu-period")
	f.str(&u.quota, "cpu-quota")
	f.str(&u.burst, "cpu-burst")
	f.str(&u.shares, "cpu-share")
	f.str(&u.rtPeriod, "cpu-rt-period")
	f.str(&u.rtRuntime, "cpu-rt-runtime")
	f.str(&u.cpus, "cpuset-cpus")
	f.str(&u.mems, "cpuset-mems")
	f.str(&u.kernel, "kernel-memory")
	f.str(&u.kernelTCP, "kernel-memory-tcp")
	f.str(&u.memory, "memory")
	f.str(&u.reservation, "memory-reservation")
	f.str(&u.swap, "memory-swap")
	f.str(&u.pids, "pids-limit")
	f.str(&u.idle, "cpu-idle")
	f.str(&u.l3, "l3-cache-schema")
	f.str(&u.membw, "mem-bw-schema")
}

func cmdUpdate(a *app, args []string) error {
	var u updateFlags
	var f flags
	u.add(&f)
	args, err := f.parse(args, true)
	if err != nil {
		return err
	}
	if err := exactly("update", args, 1, 1); err != nil {
		return err
	}
	c, err := runtime.Load(a.root, args[0])
	if err != nil {
		return err
	}
	var res specs.LinuxResources
	if u.resources != "" {
		err = readResources(u.resources, &res)
	} else {
		err = u.fill(&res)
	}
	if err != nil {
		return err
	}
	if u.l3 != "" || u.membw != "" {
		if err := c.UpdateResctrl(&specs.LinuxIntelRdt{L3CacheSchema: u.l3, MemBwSchema: u.membw}); err != nil {
			return err
		}
		if u == (updateFlags{l3: u.l3, membw: u.membw}) {
			return nil
		}
	}
	return c.Update(&res)
}

func readResources(name string, res *specs.LinuxResources) error {
	in := os.Stdin
	if name != "-" {
		var err error
		if in, err = os.Open(name); err != nil {
			return err
		}
		defer in.Close()
	}
	if err := json.NewDecoder(io.LimitReader(in, 1<<20)).Decode(res); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// fill takes the limits that were given.
func (u *updateFlags) fill(res *specs.LinuxResources) error {
	var cpu specs.LinuxCPU
	var mem specs.LinuxMemory
	var hasCPU, hasMem bool
	for _, x := range []struct {
		flag, text string
		set        func(int64)
		bytes      bool
		part       *bool
	}{
		{"cpu-period", u.period, func(n int64) { v := uint64(n); cpu.Period = &v }, false, &hasCPU},
		{"cpu-quota", u.quota, func(n int64) { cpu.Quota = &n }, false, &hasCPU},
		{"cpu-burst", u.burst, func(n int64) { v := uint64(n); cpu.Burst = &v }, false, &hasCPU},
		{"cpu-share", u.shares, func(n int64) { v := uint64(n); cpu.Shares = &v }, false, &hasCPU},
		{"cpu-rt-period", u.rtPeriod, func(n int64) { v := uint64(n); cpu.RealtimePeriod = &v }, false, &hasCPU},
		{"cpu-rt-runtime", u.rtRuntime, func(n int64) { cpu.RealtimeRuntime = &n }, false, &hasCPU},
		{"cpu-idle", u.idle, func(n int64) { cpu.Idle = &n }, false, &hasCPU},
		{"kernel-memory", u.kernel, func(n int64) { mem.Kernel = &n }, true, &hasMem}, //nolint: deprecated, still a flag
		{"kernel-memory-tcp", u.kernelTCP, func(n int64) { mem.KernelTCP = &n }, true, &hasMem},
		{"memory", u.memory, func(n int64) { mem.Limit = &n }, true, &hasMem},
		{"memory-reservation", u.reservation, func(n int64) { mem.Reservation = &n }, true, &hasMem},
		{"memory-swap", u.swap, func(n int64) { mem.Swap = &n }, true, &hasMem},
		{"pids-limit", u.pids, func(n int64) { res.Pids = &specs.LinuxPids{Limit: &n} }, false, new(bool)},
		{"blkio-weight", u.blkio, func(n int64) { v := uint16(n); res.BlockIO = &specs.LinuxBlockIO{Weight: &v} }, false, new(bool)},
	} {
		if x.text == "" {
			continue
		}
		n, err := strconv.ParseInt(x.text, 10, 64)
		if err != nil && x.bytes {
			n, err = parseBytes(x.text)
		}
		if err != nil {
			return fmt.Errorf("invalid value for %s: %w", x.flag, err)
		}
		x.set(n)
		*x.part = true
	}
	if u.cpus != "" || u.mems != "" {
		cpu.Cpus, cpu.Mems, hasCPU = u.cpus, u.mems, true
	}
	if hasCPU {
		res.CPU = &cpu
	}
	if hasMem {
		res.Memory = &mem
	}
	return nil
}

// parseBytes reads a size with a binary unit: 512m, 1GiB, 100kb.
func parseBytes(s string) (int64, error) {
	digits := strings.TrimRight(s, "bBiIkKmMgGtTpP ")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("invalid size: %q", s)
	}
	unit := strings.ToLower(strings.TrimSpace(s[len(digits):]))
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	shift := strings.Index(" kmgtp", unit)
	if unit == "" {
		shift = 0
	}
	if shift < 0 || len(unit) > 1 {
		return 0, fmt.Errorf("invalid size: %q", s)
	}
	size := n * float64(int64(1)<<(10*shift))
	if size >= 1<<63 {
		return 0, fmt.Errorf("size out of range: %q", s)
	}
	return int64(size), nil
}
