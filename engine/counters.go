package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cale/runtime/cgroup"
)

// Counters are the kernel's own figures of a running container, read where the kernel has them: nobody is asked.
type Counters struct {
	*cgroup.Stats
	Read     time.Time
	Pid      int
	Started  time.Time
	Networks map[string]InterfaceStats
	Cgroup   string
}

// Counters reads them of a container by its id.
func (e *Engine) Counters(ref string) (Counters, error) {
	out, err := e.counters(ref, (*cgroup.Cgroup).Stats)
	if err == nil {
		out.Networks = Interfaces(out.Pid)
	}
	return out, err
}

// Usage reads just those that are asked for often, as cgroup.Usage does: none of the network's.
func (e *Engine) Usage(ref string) (Counters, error) { return e.counters(ref, (*cgroup.Cgroup).Usage) }

func (e *Engine) counters(ref string, read func(*cgroup.Cgroup) (*cgroup.Stats, error)) (Counters, error) {
	c, err := e.find(ref)
	if err != nil {
		return Counters{}, err
	}
	r, err := c.running()
	if err != nil {
		return Counters{}, err
	}
	out := Counters{Pid: r.pid, Started: r.started, Cgroup: e.cgroupOf(c)}
	g, err := cgroup.Open(out.Cgroup, cgroup.Options{})
	if err == nil {
		out.Stats, err = read(g)
	}
	if err != nil {
		return out, fmt.Errorf("statistics of container %s: %w", c.id, err)
	}
	out.Read = time.Now()
	return out, nil
}

func (e *Engine) cgroupOf(c *container) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return filepath.Join(e.cgroupParent(&c.rec.Spec), c.id)
}

// ProcessCounters counts what a container's processes have.
type ProcessCounters struct {
	Processes, Threads, Files, Sockets uint64
	OpenFiles                          uint64 // the soft limit of the first process
}

// ProcessCounters looks at all processes of a running container. Those that end meanwhile count for what was seen.
func (e *Engine) ProcessCounters(c *Counters) (p ProcessCounters) {
	g, err := cgroup.Open(c.Cgroup, cgroup.Options{})
	if err != nil {
		return p
	}
	pids, err := g.Pids()
	if err != nil {
		return p
	}
	p.Processes = uint64(len(pids))
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid)
		if threads, err := os.ReadDir(dir + "/task"); err == nil {
			p.Threads += uint64(len(threads))
		}
		files, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue
		}
		p.Files += uint64(len(files))
		for _, f := range files {
			if to, err := os.Readlink(dir + "/fd/" + f.Name()); err == nil && strings.HasPrefix(to, "socket:") {
				p.Sockets++
			}
		}
	}
	var limit unix.Rlimit
	if unix.Prlimit(c.Pid, unix.RLIMIT_NOFILE, nil, &limit) == nil {
		p.OpenFiles = limit.Cur
	}
	return p
}
