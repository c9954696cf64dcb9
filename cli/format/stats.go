package format

import (
	"fmt"
	"strings"

	"cale/client"

	"github.com/docker/go-units"
)

// Stats is a row of the use of resources.
type Stats struct {
	BlockIO   string
	CPUPerc   string
	Container string
	ID        string
	MemPerc   string
	MemUsage  string
	Name      string
	NetIO     string
	PIDs      string
	Pressure  string // percent of the last ten seconds that some task waited for processor, memory, I/O
}

// StatsHeader holds the headings.
var StatsHeader = Stats{BlockIO: "BLOCK I/O", CPUPerc: "CPU %", Container: "CONTAINER", ID: "CONTAINER ID", MemPerc: "MEM %",
	MemUsage: "MEM USAGE / LIMIT", Name: "NAME", NetIO: "NET I/O", PIDs: "PIDS", Pressure: "PSI CPU / MEM / IO"}

// StatsTable is the usual table's template.
const StatsTable = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}\t{{.Pressure}}"

// NoStats is the row of a container that has said nothing yet.
func NoStats(container string) Stats {
	return Stats{BlockIO: "--", CPUPerc: "--", Container: container, ID: container, MemPerc: "--", MemUsage: "-- / --", Name: "--", NetIO: "--", PIDs: "--", Pressure: "--"}
}

// NewStats makes a row.
func NewStats(container string, s client.Stats) Stats {
	var rx, tx, read, write uint64
	for _, n := range s.Networks {
		rx, tx = rx+n.RxBytes, tx+n.TxBytes
	}
	for _, b := range s.Block.Bytes {
		switch strings.ToLower(b.Op) {
		case "read":
			read += b.Value
		case "write":
			write += b.Value
		}
	}
	used := memoryUsed(s.Memory)
	percent := 0.0
	if s.Memory.Limit > 0 {
		percent = float64(used) / float64(s.Memory.Limit) * 100
	}
	return Stats{
		Container: container, ID: s.ID, Name: strings.TrimPrefix(s.Name, "/"),
		CPUPerc:  fmt.Sprintf("%.2f%%", cpuPercent(s)),
		MemUsage: units.BytesSize(float64(used)) + " / " + units.BytesSize(float64(s.Memory.Limit)),
		MemPerc:  fmt.Sprintf("%.2f%%", percent),
		NetIO:    units.HumanSizeWithPrecision(float64(rx), 3) + " / " + units.HumanSizeWithPrecision(float64(tx), 3),
		BlockIO:  units.HumanSizeWithPrecision(float64(read), 3) + " / " + units.HumanSizeWithPrecision(float64(write), 3),
		PIDs:     fmt.Sprint(s.Pids.Current),
		Pressure: pressure(s.Pressure),
	}
}

func pressure(p *client.Pressure) string {
	if p == nil {
		return "not counted"
	}
	return waited(p.CPU) + " / " + waited(p.Memory) + " / " + waited(p.IO)
}

func waited(w *client.Waiting) string {
	if w == nil {
		return "--"
	}
	return fmt.Sprintf("%.2f%%", w.Some.Avg10)
}

// memoryUsed is the usage without page cache that can be dropped.
func memoryUsed(m client.MemStats) uint64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} { // cgroup v1, v2
		if v, ok := m.Stats[key]; ok && v < m.Usage {
			return m.Usage - v
		}
	}
	return m.Usage
}

// cpuPercent is the share of one processor since the previous sample: two busy
// processors are 200 %.
func cpuPercent(s client.Stats) float64 {
	used := float64(s.CPU.Usage.Total) - float64(s.Previous.Usage.Total)
	system := float64(s.CPU.System) - float64(s.Previous.System)
	online := float64(s.CPU.Online)
	if online == 0 {
		online = float64(len(s.CPU.Usage.PerCPU))
	}
	if system <= 0 || used <= 0 {
		return 0
	}
	return used / system * online * 100
}
