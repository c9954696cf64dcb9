package engine

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	units "github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"cale/engine/ocispec"
)

const (
	leastMemory = 6 << 20
	cpuPeriod   = 100000 // µs, the kernel's default
)

var rlimitNames = map[string]bool{"as": true, "core": true, "cpu": true, "data": true, "fsize": true, "locks": true,
	"memlock": true, "msgqueue": true, "nice": true, "nofile": true, "nproc": true, "rss": true, "rtprio": true,
	"rttime": true, "sigpending": true, "stack": true}

func checkResources(r *Resources) error {
	switch {
	case r.Memory < 0 || r.Memory > 0 && r.Memory < leastMemory:
		return invalid("Minimum memory limit allowed is 6MB")
	case r.MemorySwap > 0 && r.Memory == 0:
		return invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.MemoryReservation < 0 || r.MemoryReservation > 0 && r.MemoryReservation < leastMemory:
		return invalid("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100):
		return invalid("Invalid value: %d, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.CPUShares < 0:
		return invalid("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000):
		return invalid("Range of blkio weight is from 10 to 1000")
	}
	for _, set := range []struct{ asked, what, name, file string }{
		{r.CpusetCPUs, "CPUs", "cpus", "/sys/devices/system/cpu/online"}, {r.CpusetMems, "memory nodes", "mems", "/sys/devices/system/node/online"},
	} {
		if err := checkSet(set.asked, set.what, set.name, set.file); err != nil {
			return err
		}
	}
	if cpus := hostCPUs(); r.NanoCPUs < 0 || r.NanoCPUs > int64(cpus)*1e9 {
		return invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	}
	for _, u := range r.Ulimits {
		if !rlimitNames[u.Name] {
			return invalid("invalid ulimit type: %s", u.Name)
		}
		if u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
			return invalid("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
	}
	for _, s := range r.DeviceCgroupRules {
		if _, err := ocispec.DeviceRule(s); err != nil {
			return invalid("%v", err)
		}
	}
	return checkBlockIO(r)
}

// checkSet refuses a list of processors or memory nodes of which the machine lacks some. The file has those that are
// on line; a kernel that doesn't say is left to refuse itself.
func checkSet(asked, what, name, file string) error {
	if asked == "" {
		return nil
	}
	want, err := numberSet(asked)
	if err != nil {
		return invalid("Invalid value %s for cpuset %s", asked, name)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	online := strings.TrimSpace(string(raw))
	have, err := numberSet(online)
	if err != nil {
		return nil
	}
	for n := range want {
		if !have[n] {
			return invalid("Requested %s are not available - requested %s, available: %s", what, asked, online)
		}
	}
	return nil
}

// numberSet reads a list as the kernel writes it: "0-3,7".
func numberSet(list string) (map[int]bool, error) {
	const most = 8192 // processors a kernel can be built for
	set := map[int]bool{}
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.ParseUint(lo, 10, 16)
		if err != nil {
			return nil, err
		}
		last := first
		if isRange {
			if last, err = strconv.ParseUint(hi, 10, 16); err != nil {
				return nil, err
			}
		}
		if last < first || last >= most {
			return nil, strconv.ErrRange
		}
		for n := first; n <= last; n++ {
			set[int(n)] = true
		}
	}
	return set, nil
}

// settle gives limits that follow from others their value, so that inspect shows it, and says what is lost.
func (r *Resources) settle() (warnings []string) {
	r.Pids = settledPids(r.Pids)
	if r.Memory <= 0 {
		return nil
	}
	if !swapLimits() {
		if r.MemorySwap >= 0 {
			warnings = append(warnings, "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
		}
		r.MemorySwap = -1
	} else if r.MemorySwap == 0 {
		r.MemorySwap = 2 * r.Memory // as much swap again, Docker's default
	}
	return warnings
}

// hostCPUs counts the processors the machine has on line.
var hostCPUs = sync.OnceValue(func() int {
	raw, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return 1
	}
	online, _ := numberSet(strings.TrimSpace(string(raw))) // the kernel writes numbers
	return max(len(online), 1)
})

// hostMemory is the machine's memory in bytes.
var hostMemory = sync.OnceValue(func() int64 {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb * units.KiB
		}
	}
	return 0
})

// swapLimits says whether the kernel can limit memory and swap together.
var swapLimits = sync.OnceValue(func() bool {
	if ocispec.CgroupV2() {
		return true
	}
	_, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	return err == nil
})

// hugepageLimits says whether the kernel can limit huge pages.
var hugepageLimits = sync.OnceValue(func() bool {
	if !ocispec.CgroupV2() {
		_, err := os.Stat("/sys/fs/cgroup/hugetlb/cgroup.procs")
		return err == nil
	}
	raw, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	return err == nil && slices.Contains(strings.Fields(string(raw)), "hugetlb")
})

// linuxResources gives the limits as the OCI specification has them, without devices.
func linuxResources(r *Resources) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	mem := &specs.LinuxMemory{}
	if r.Memory > 0 {
		mem.Limit = &r.Memory
		swap := r.MemorySwap
		if swap == 0 {
			swap = 2 * r.Memory // a record from before settle
		}
		if swapLimits() {
			mem.Swap = &swap
		}
	}
	if r.MemoryReservation > 0 {
		mem.Reservation = &r.MemoryReservation
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		v := uint64(*r.MemorySwappiness)
		mem.Swappiness = &v
	}
	if r.OOMKillDisable != nil && *r.OOMKillDisable {
		mem.DisableOOMKiller = r.OOMKillDisable
	}
	if *mem != (specs.LinuxMemory{}) {
		out.Memory = mem
	}
	cpu := &specs.LinuxCPU{Cpus: r.CpusetCPUs, Mems: r.CpusetMems}
	if r.CPUShares > 0 {
		v := uint64(r.CPUShares)
		cpu.Shares = &v
	}
	if r.NanoCPUs > 0 {
		period, quota := uint64(cpuPeriod), r.NanoCPUs*cpuPeriod/1e9
		cpu.Period, cpu.Quota = &period, &quota
	}
	if r.CPUPeriod > 0 {
		v := uint64(r.CPUPeriod)
		cpu.Period = &v
	}
	if r.CPUQuota != 0 {
		cpu.Quota = &r.CPUQuota
	}
	if r.CPURealtimePeriod > 0 {
		v := uint64(r.CPURealtimePeriod)
		cpu.RealtimePeriod = &v
	}
	if r.CPURealtimeRuntime != 0 {
		cpu.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	if *cpu != (specs.LinuxCPU{}) {
		out.CPU = cpu
	}
	if r.Pids != nil && *r.Pids > 0 {
		out.Pids = &specs.LinuxPids{Limit: r.Pids}
	}
	return out
}
