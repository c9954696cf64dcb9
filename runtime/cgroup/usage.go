package cgroup

// Usage reads of a group what is asked for often, and of all groups at once: the processors' time, memory, the number of
// tasks, and pressure. Memory's Stat has only what is in usageStat. A group that is gone is an error.
func (c *Cgroup) Usage() (*Stats, error) {
	r := reader{}
	s := &Stats{V2: c.v2, CPU: &CPUStats{}, IO: &IOStats{}}
	if c.v2 {
		dir := c.groups[0].dir
		text, err := read(dir, "cpu.stat")
		r.fail(err)
		keyed(text, func(key string, n uint64) {
			if key == "usage_usec" {
				s.CPU.Total = n * 1000
			}
		})
		s.Memory = r.usedMemory(dir, "memory.current", "memory.max", "memory.swap.max")
		if s.Memory != nil {
			s.Memory.SwapUsage = r.number(dir, "memory.swap.current")
		}
		s.Pids = &PidsStats{Current: r.number(dir, "pids.current")}
	} else {
		if dir, ok := c.dir("cpuacct"); ok {
			total, err := number(dir, "cpuacct.usage")
			r.fail(err)
			s.CPU.Total = total
		}
		if dir, ok := c.dir("memory"); ok {
			s.Memory = r.usedMemory(dir, "memory.usage_in_bytes", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
		}
		if dir, ok := c.dir("pids"); ok {
			s.Pids = &PidsStats{Current: r.number(dir, "pids.current")}
		}
	}
	c.pressure(s)
	return s, r.err
}

// usageStat are the lines of memory.stat that working set, resident memory, faults and swap are told from; v1 has those
// of the groups below in others.
var usageStat = map[string]bool{"inactive_file": true, "anon": true, "pgfault": true, "pgmajfault": true,
	"total_inactive_file": true, "total_rss": true, "total_pgfault": true, "total_pgmajfault": true, "total_swap": true}

// usedMemory is nil where no controller counts memory.
func (r *reader) usedMemory(dir, usage, limit, swapLimit string) *MemoryStats {
	text, err := read(dir, "memory.stat")
	if err != nil {
		if !isGone(err) {
			r.fail(err)
		}
		return nil
	}
	m := &MemoryStats{Usage: r.number(dir, usage), Limit: r.number(dir, limit), SwapLimit: r.number(dir, swapLimit), Stat: make(map[string]uint64, len(usageStat))}
	keyed(text, func(key string, n uint64) {
		if usageStat[key] {
			m.Stat[key] = n
		}
	})
	return m
}
