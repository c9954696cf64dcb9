package cgroup

import (
	"errors"
	"fmt"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// limitV1 writes what res asks for. fresh says the group was made just now and still has the kernel's defaults.
func (c *Cgroup) limitV1(res *specs.LinuxResources, fresh bool) error {
	w := &writer{c: c}
	w.memory(res.Memory, fresh)
	w.cpu(res.CPU)
	w.cpuset(res.CPU)
	if res.Pids != nil && res.Pids.Limit != nil {
		w.set("pids", "pids.max", pidsMax(*res.Pids.Limit))
	}
	w.blkio(res.BlockIO)
	for _, h := range res.HugepageLimits {
		w.hugetlb(h, ".limit_in_bytes")
	}
	if n := res.Network; n != nil {
		if n.ClassID != nil && *n.ClassID != 0 {
			w.set("net_cls", "net_cls.classid", strconv.FormatUint(uint64(*n.ClassID), 10))
		}
		for _, p := range n.Priorities {
			w.set("net_prio", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))
		}
	}
	w.rdma(res.Rdma)
	return w.err
}

// writer sets limits until one fails.
type writer struct {
	c   *Cgroup
	err error
}

// set writes a file of one controller, which has to be there.
func (w *writer) set(controller, file, value string) {
	if w.err == nil {
		w.err = w.try(controller, file, value)
	}
}

func (w *writer) try(controller, file, value string) error {
	lookup := controller
	if w.c.v2 {
		lookup = ""
	}
	dir, ok := w.c.dir(lookup)
	if !ok {
		return missing(file, controller)
	}
	err := w.c.write(dir, file, value)
	if w.c.v2 && errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: %w", missing(file, controller), err)
	}
	return err
}

// count writes -1, the specification's "no limit", as the kernel's "max".
// pidsMax is a limit of processes. 0 is one, and written as 1, which is what runc and systemd make of it: there has
// to be a first process.
func pidsMax(n int64) string {
	if n == 0 {
		n = 1
	}
	return count(n)
}

func count(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func (w *writer) memory(m *specs.LinuxMemory, fresh bool) {
	if m == nil {
		return
	}
	w.memoryAndSwap(value(m.Limit), value(m.Swap), fresh)
	if n := value(m.Reservation); n != 0 {
		w.set("memory", "memory.soft_limit_in_bytes", strconv.FormatInt(n, 10))
	}
	// memory.kernel is ignored as the specification allows: kernels since 5.4 don't have it.
	if n := value(m.KernelTCP); n != 0 {
		w.set("memory", "memory.kmem.tcp.limit_in_bytes", strconv.FormatInt(n, 10))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		w.set("memory", "memory.oom_control", "1")
	}
	if s := m.Swappiness; s != nil {
		if *s > 100 {
			w.fail(fmt.Errorf("memory.swappiness %d: must be from 0 to 100", *s))
			return
		}
		w.set("memory", "memory.swappiness", strconv.FormatUint(*s, 10))
	}
}

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// memoryAndSwap sets both limits in the order the kernel takes: memory may never exceed memory and swap, not even
// in between.
func (w *writer) memoryAndSwap(limit, swap int64, fresh bool) {
	// Without a limit on memory, one on memory and swap left from before would go on limiting both.
	if limit == -1 && swap == 0 && !fresh {
		swap = -1
	}
	if err := checkSwap(limit, swap); err != nil {
		w.fail(err)
		return
	}
	memory := func() {
		if limit != 0 {
			w.set("memory", "memory.limit_in_bytes", strconv.FormatInt(limit, 10))
			w.explainBusy(limit)
		}
	}
	both := func() {
		if swap == 0 {
			return
		}
		err := w.try("memory", "memory.memsw.limit_in_bytes", strconv.FormatInt(swap, 10))
		// No swap accounting: then there's nothing to lift.
		if swap == -1 && errors.Is(err, unix.ENOENT) {
			return
		}
		w.fail(err)
	}
	if swap != 0 && limit != 0 && !fresh && w.raises(swap) {
		both()
		memory()
		return
	}
	memory()
	both()
}

// checkSwap refuses a limit on memory and swap together below that on memory.
func checkSwap(limit, swap int64) error {
	if limit > 0 && swap > 0 && swap < limit {
		return fmt.Errorf("memory.swap %d: must not be less than memory.limit %d (it counts both)", swap, limit)
	}
	return nil
}

// raises reports whether swap is more than the group's present limit on memory and swap.
func (w *writer) raises(swap int64) bool {
	if swap == -1 {
		return true
	}
	dir, ok := w.c.dir("memory")
	if !ok {
		return false
	}
	now, err := number(dir, "memory.memsw.limit_in_bytes")
	return err == nil && now < uint64(swap)
}

func (w *writer) explainBusy(limit int64) {
	if !errors.Is(w.err, unix.EBUSY) {
		return
	}
	dir, _ := w.c.dir("memory")
	usage, _ := number(dir, "memory.usage_in_bytes")
	peak, _ := number(dir, "memory.max_usage_in_bytes")
	w.err = fmt.Errorf("cannot set the memory limit to %d (usage now: %d, at most: %d): %w", limit, usage, peak, w.err)
}

func (w *writer) cpu(cpu *specs.LinuxCPU) {
	if cpu == nil {
		return
	}
	set := func(file, v string) { w.set("cpu", file, v) }
	if n := value(cpu.Shares); n != 0 {
		set("cpu.shares", strconv.FormatUint(n, 10))
	}
	// Real-time limits: the period before the runtime, which may not exceed it; the other way round when lowering.
	if period, runtime := value(cpu.RealtimePeriod), value(cpu.RealtimeRuntime); period != 0 || runtime != 0 {
		w.pair("cpu.rt_period_us", period, "cpu.rt_runtime_us", runtime)
	}
	burst := ""
	if cpu.Burst != nil {
		// More burst than the present quota is refused: then it goes after the quota.
		burst = strconv.FormatUint(*cpu.Burst, 10)
		err := w.try("cpu", "cpu.cfs_burst_us", burst)
		if err == nil {
			burst = ""
		} else if !errors.Is(err, unix.EINVAL) || value(cpu.Quota) == 0 {
			w.fail(err)
		}
	}
	w.pair("cpu.cfs_period_us", value(cpu.Period), "cpu.cfs_quota_us", value(cpu.Quota))
	if burst != "" {
		set("cpu.cfs_burst_us", burst)
	}
	if cpu.Idle != nil {
		set("cpu.idle", strconv.FormatInt(*cpu.Idle, 10))
	}
}

// pair writes a period and a runtime. The kernel checks each write against the other value in force, so a refused
// period is tried again after the runtime.
func (w *writer) pair(periodFile string, period uint64, file string, runtime int64) {
	p := strconv.FormatUint(period, 10)
	again := false
	if period != 0 {
		if err := w.try("cpu", periodFile, p); err != nil {
			if again = errors.Is(err, unix.EINVAL) && runtime != 0; !again {
				w.fail(err)
			}
		}
	}
	if runtime != 0 {
		w.set("cpu", file, strconv.FormatInt(runtime, 10))
	}
	if again {
		w.set("cpu", periodFile, p)
	}
}

func (w *writer) cpuset(cpu *specs.LinuxCPU) {
	if cpu == nil {
		return
	}
	if cpu.Cpus != "" {
		w.set("cpuset", "cpuset.cpus", cpu.Cpus)
	}
	if cpu.Mems != "" {
		w.set("cpuset", "cpuset.mems", cpu.Mems)
	}
}

func (w *writer) blkio(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	// Weights belong to the disk scheduler: bfq has files of its own, and without it neither name exists.
	weight := func(name, v string) {
		err := w.try("blkio", "blkio."+name, v)
		if errors.Is(err, unix.ENOENT) {
			err = w.try("blkio", "blkio.bfq."+name, v)
		}
		w.fail(err)
	}
	if n := value(b.Weight); n != 0 {
		weight("weight", strconv.Itoa(int(n)))
	}
	if n := value(b.LeafWeight); n != 0 {
		w.set("blkio", "blkio.leaf_weight", strconv.Itoa(int(n)))
	}
	for _, d := range b.WeightDevice {
		if n := value(d.Weight); n != 0 {
			weight("weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, n))
		}
		if n := value(d.LeafWeight); n != 0 {
			w.set("blkio", "blkio.leaf_weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, n))
		}
	}
	for _, t := range []struct {
		file string
		list []specs.LinuxThrottleDevice
	}{
		{"read_bps_device", b.ThrottleReadBpsDevice}, {"write_bps_device", b.ThrottleWriteBpsDevice},
		{"read_iops_device", b.ThrottleReadIOPSDevice}, {"write_iops_device", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.list {
			w.set("blkio", "blkio.throttle."+t.file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate))
		}
	}
}

// hugetlb limits pages in use, and reservations where the kernel (since 5.7) counts them.
func (w *writer) hugetlb(h specs.LinuxHugepageLimit, suffix string) {
	for _, r := range h.Pagesize {
		if !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z') {
			w.fail(fmt.Errorf("huge page size %q: want a form like 2MB", h.Pagesize))
			return
		}
	}
	limit := strconv.FormatUint(h.Limit, 10)
	w.set("hugetlb", "hugetlb."+h.Pagesize+suffix, limit)
	if w.err == nil {
		if err := w.try("hugetlb", "hugetlb."+h.Pagesize+".rsvd"+suffix, limit); !errors.Is(err, unix.ENOENT) {
			w.fail(err)
		}
	}
}

func (w *writer) rdma(limits map[string]specs.LinuxRdma) {
	for device, l := range limits {
		line := device
		if l.HcaHandles != nil {
			line += " hca_handle=" + strconv.FormatUint(uint64(*l.HcaHandles), 10)
		}
		if l.HcaObjects != nil {
			line += " hca_object=" + strconv.FormatUint(uint64(*l.HcaObjects), 10)
		}
		if line != device {
			w.set("rdma", "rdma.max", line)
		}
	}
}

// value is 0 for what isn't given, which the specification's limits treat alike ("leave it").
func value[T uint16 | uint64 | int64](p *T) T {
	if p == nil {
		return 0
	}
	return *p
}
