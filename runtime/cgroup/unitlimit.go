package cgroup

import (
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// properties are the limits that systemd has a name for (systemd.resource-control(5)).
func properties(res *specs.LinuxResources, v2 bool) ([]any, error) {
	if res == nil {
		return nil, nil
	}
	var props []any
	amount := func(name string, n int64) {
		v := uint64(n)
		if n < 0 {
			v = 1<<64 - 1
		}
		props = append(props, property(name, "t", v))
	}
	if m := res.Memory; m != nil {
		switch {
		case m.Limit == nil || *m.Limit == 0:
		case v2:
			amount("MemoryMax", *m.Limit)
		default:
			amount("MemoryLimit", *m.Limit)
		}
		if v2 && m.Reservation != nil && *m.Reservation != 0 {
			amount("MemoryLow", *m.Reservation)
		}
		if v2 && m.Swap != nil && *m.Swap != 0 && m.Limit != nil {
			swap := *m.Swap
			if swap > 0 && *m.Limit > 0 {
				swap -= *m.Limit // the specification counts both
			}
			amount("MemorySwapMax", swap)
		}
	}
	if c := res.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			if v2 {
				amount("CPUWeight", int64(Weight(*c.Shares)))
			} else {
				amount("CPUShares", int64(*c.Shares))
			}
		}
		if c.Quota != nil || c.Period != nil {
			period, quota := uint64(100000), int64(-1)
			if c.Period != nil && *c.Period != 0 {
				period = *c.Period
				props = append(props, property("CPUQuotaPeriodUSec", "t", period))
			}
			if c.Quota != nil {
				quota = *c.Quota
			}
			perSecond := int64(-1)
			if quota > 0 {
				// systemd counts in hundredths of a processor.
				perSecond = (quota*1000000/int64(period) + 9999) / 10000 * 10000
			}
			amount("CPUQuotaPerSecUSec", perSecond)
		}
		if v2 {
			for name, list := range map[string]string{"AllowedCPUs": c.Cpus, "AllowedMemoryNodes": c.Mems} {
				if list == "" {
					continue
				}
				mask, err := listMask(list)
				if err != nil {
					return nil, err
				}
				props = append(props, property(name, "ay", mask))
			}
		}
	}
	if p := res.Pids; p != nil && p.Limit != nil {
		n := *p.Limit
		if n == 0 {
			n = 1
		}
		amount("TasksMax", n)
	}
	return props, nil
}

// listMask is a list of processors or nodes as systemd takes it: bits, in bytes from the lowest.
func listMask(list string) ([]any, error) {
	var set [8192 / 8]byte
	most := uint64(0)
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		lo, hi, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			hi = lo
		}
		a, err1 := strconv.ParseUint(lo, 10, 16)
		b, err2 := strconv.ParseUint(hi, 10, 16)
		if err1 != nil || err2 != nil || a > b || b > 8191 {
			return nil, fmt.Errorf("bad list %q", list)
		}
		for i := a; i <= b; i++ {
			set[i/8] |= 1 << (i % 8)
		}
		most = max(most, b)
	}
	mask := make([]any, most/8+1)
	for i := range mask {
		mask[i] = set[i]
	}
	return mask, nil
}
