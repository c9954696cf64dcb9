package cgroup

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bandwidth is how much of the processors a group has: a quota of so many microseconds each period; -1 is none.
type bandwidth struct {
	quota  int64
	period uint64
}

// unlimited is a new group's.
var unlimited = bandwidth{quota: -1, period: 100000}

// bandwidth reads what is in force: systemd wants a share, which a change of quota or period alone doesn't tell.
func (c *Cgroup) bandwidth() (bandwidth, error) {
	quota, period := "", ""
	var err error
	if c.v2 {
		dir, _ := c.dir("")
		var line string
		line, err = read(dir, "cpu.max")
		quota, period, _ = strings.Cut(line, " ")
	} else {
		dir, ok := c.dir("cpu")
		if !ok {
			return unlimited, nil
		}
		if quota, err = read(dir, "cpu.cfs_quota_us"); err == nil {
			period, err = read(dir, "cpu.cfs_period_us")
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return unlimited, nil // no such controller: setting it says so
	}
	if err != nil {
		return unlimited, err
	}
	now := unlimited
	if now.period, err = strconv.ParseUint(period, 10, 64); err != nil {
		return unlimited, fmt.Errorf("period of the processor quota: %w", err)
	}
	if quota != "max" {
		if now.quota, err = strconv.ParseInt(quota, 10, 64); err != nil {
			return unlimited, fmt.Errorf("processor quota: %w", err)
		}
	}
	return now, nil
}

// maxBandwidth bounds the kernel's quotas and periods, in microseconds.
const maxBandwidth = 1 << 44

// perSecond is the share in microseconds each second, as systemd counts it: in hundredths of a processor.
func (b bandwidth) perSecond() (int64, error) {
	if b.quota < 0 {
		return -1, nil
	}
	if b.quota >= maxBandwidth || b.period == 0 || b.period >= maxBandwidth {
		return 0, fmt.Errorf("cpu.quota %d of cpu.period %d: out of range", b.quota, b.period)
	}
	share := (uint64(b.quota)*1000000/b.period + 9999) / 10000 * 10000
	return int64(min(share, math.MaxInt64)), nil
}

// properties are the limits that systemd has a name for (systemd.resource-control(5)), for a group that has now.
func properties(res *specs.LinuxResources, v2 bool, now bandwidth) ([]any, error) {
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
		limit, swap := value(m.Limit), value(m.Swap)
		if v2 {
			// All is checked before anything is sent: systemd would go on enforcing half of what was refused.
			only, err := SwapOnly(limit, swap)
			if err != nil {
				return nil, err
			}
			if limit != 0 {
				amount("MemoryMax", limit)
			}
			if n := value(m.Reservation); n != 0 {
				amount("MemoryLow", n)
			}
			if swap != 0 || only != 0 {
				amount("MemorySwapMax", only)
			}
		} else {
			if err := checkSwap(limit, swap); err != nil {
				return nil, err
			}
			if limit != 0 {
				amount("MemoryLimit", limit)
			}
		}
	}
	if c := res.CPU; c != nil {
		if n := value(c.Shares); n != 0 {
			if v2 {
				amount("CPUWeight", int64(Weight(n)))
			} else {
				amount("CPUShares", int64(n))
			}
		}
		quota, period := value(c.Quota), value(c.Period)
		if period != 0 {
			now.period = period
			props = append(props, property("CPUQuotaPeriodUSec", "t", period))
		}
		if quota != 0 {
			now.quota = quota
		}
		// A quota that stays becomes another share by another period.
		if quota != 0 || period != 0 && now.quota > 0 {
			share, err := now.perSecond()
			if err != nil {
				return nil, err
			}
			amount("CPUQuotaPerSecUSec", share)
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
