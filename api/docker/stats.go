package docker

import (
	"errors"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"

	"cale/engine"
	"cale/runtime/cgroup"
)

// statistics are Docker's with what Docker has not.
type statistics struct {
	container.StatsResponse
	Pressure *pressure `json:"pressure_stats,omitempty"` // nil where the kernel doesn't count it
}

// pressure is how long tasks waited: percentages over the last 10, 60 and 300 seconds, the total in microseconds.
type pressure struct {
	CPU    *cgroup.PSI `json:"cpu,omitempty"`
	Memory *cgroup.PSI `json:"memory,omitempty"`
	IO     *cgroup.PSI `json:"io,omitempty"`
}

func pressureOf(p engine.Pressure) *pressure {
	if p == (engine.Pressure{}) {
		return nil
	}
	return &pressure{p.CPU, p.Memory, p.IO}
}

func blockEntries(list []engine.BlockIO) (out []container.BlkioStatEntry) {
	for _, b := range list {
		out = append(out, container.BlkioStatEntry{Major: b.Major, Minor: b.Minor, Op: b.Op, Value: b.Count})
	}
	return out
}

func (s *Server) containerStats(w http.ResponseWriter, r *request) error {
	info, err := s.engine.Inspect(r.Context(), r.name(), false)
	if err != nil {
		return err
	}
	stream := r.text("stream") == "" || r.flag("stream")
	oneShot := r.flag("one-shot")
	w.Header().Set("Content-Type", "application/json")
	var last *statistics
	for {
		st, err := s.engine.Stats(r.Context(), info.ID)
		stopped := errors.Is(err, engine.ErrConflict)
		if stopped {
			err = nil // it uses nothing
		}
		if err != nil {
			if last != nil {
				return nil
			}
			return err
		}
		out := dockerStats(&info, st)
		if stopped {
			last = &out
		}
		if last != nil {
			out.PreRead, out.PreCPUStats = last.Read, last.CPUStats
		}
		if stream || oneShot || last != nil {
			if writeBody(w, out) != nil || !stream {
				return nil
			}
		}
		last = &out
		select {
		case <-r.Context().Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func dockerStats(info *engine.Info, s engine.Stats) statistics {
	out := statistics{Pressure: pressureOf(s.Pressure)}
	out.StatsResponse = container.StatsResponse{
		ID: info.ID, Name: "/" + info.Name, OSType: "linux", Read: s.Read,
		CPUStats: container.CPUStats{
			CPUUsage:       container.CPUUsage{TotalUsage: s.CPU.Total, PercpuUsage: s.CPU.PerCPU, UsageInKernelmode: s.CPU.Kernel, UsageInUsermode: s.CPU.User},
			SystemUsage:    s.CPU.System,
			OnlineCPUs:     s.CPU.Online,
			ThrottlingData: container.ThrottlingData{Periods: s.CPU.Periods, ThrottledPeriods: s.CPU.Throttled, ThrottledTime: s.CPU.ThrottledFor},
		},
		MemoryStats: container.MemoryStats{Usage: s.Memory.Usage, MaxUsage: s.Memory.MaxUsage, Limit: s.Memory.Limit, Failcnt: s.Memory.Failcnt, Stats: s.Memory.Detail},
		PidsStats:   container.PidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit},
	}
	out.BlkioStats.IoServiceBytesRecursive, out.BlkioStats.IoServicedRecursive = blockEntries(s.Block), blockEntries(s.BlockOps)
	if len(s.Networks) > 0 {
		out.Networks = map[string]container.NetworkStats{}
		for name, n := range s.Networks {
			out.Networks[name] = container.NetworkStats{
				RxBytes: n.RxBytes, RxPackets: n.RxPackets, RxErrors: n.RxErrors, RxDropped: n.RxDropped,
				TxBytes: n.TxBytes, TxPackets: n.TxPackets, TxErrors: n.TxErrors, TxDropped: n.TxDropped,
			}
		}
	}
	return out
}
