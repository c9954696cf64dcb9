package cri

import (
	"context"
	"math"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
	"cale/runtime/cgroup"
)

// usageKept is how long a container's measured size is taken for its size: measuring walks its tree.
const usageKept = 30 * time.Second

type usageCache struct {
	mu   sync.Mutex
	byID map[string]usageAt
}

type usageAt struct {
	written
	at    time.Time
	cpu   uint64 // nanoseconds used at cpuAt, for the rate
	cpuAt time.Time
}

// written is what a container has written: bytes of disk space, and files.
type written struct{ bytes, files uint64 }

func (u *usageCache) drop(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.byID, id)
}

// size is what a container has written.
func (s *Server) size(id string) written {
	s.usage.mu.Lock()
	have := s.usage.byID[id]
	s.usage.mu.Unlock()
	if time.Since(have.at) < usageKept {
		return have.written
	}
	bytes, files, err := s.engine.Written(id)
	if err != nil {
		return have.written
	}
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	if s.usage.byID == nil {
		s.usage.byID = map[string]usageAt{}
	}
	x := s.usage.byID[id]
	x.written, x.at = written{uint64(bytes), uint64(files)}, time.Now()
	s.usage.byID[id] = x
	return x.written
}

// rate is the processors' use since the last time somebody asked, in nanoseconds a second.
func (s *Server) rate(id string, used uint64, now time.Time) uint64 {
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	if s.usage.byID == nil {
		s.usage.byID = map[string]usageAt{}
	}
	x := s.usage.byID[id]
	var out uint64
	if d := now.Sub(x.cpuAt); !x.cpuAt.IsZero() && d > 0 && used >= x.cpu {
		out = uint64(float64(used-x.cpu) / d.Seconds())
	}
	x.cpu, x.cpuAt = used, now
	s.usage.byID[id] = x
	return out
}

// statsOf measures a container, and gives what it read; what doesn't run has a size only.
func (s *Server) statsOf(i *engine.MemberState) (*runtimeapi.ContainerStats, *engine.Counters) {
	m, size := containerMeta(i.ID, i.Member), s.size(i.ID)
	out := &runtimeapi.ContainerStats{Attributes: &runtimeapi.ContainerAttributes{Id: i.ID, Metadata: m.Metadata, Labels: m.Labels, Annotations: m.Annotations},
		WritableLayer: &runtimeapi.FilesystemUsage{Timestamp: time.Now().UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: s.writtenAt},
			UsedBytes: number(size.bytes), InodesUsed: number(size.files)}}
	st, err := s.engine.Usage(i.ID)
	if err != nil {
		return out, nil
	}
	at := st.Read.UnixNano()
	if c := st.CPU; c != nil {
		out.Cpu = &runtimeapi.CpuUsage{Timestamp: at, UsageCoreNanoSeconds: number(c.Total), UsageNanoCores: number(s.rate(i.ID, c.Total, st.Read)), Psi: psiOf(c.PSI)}
	}
	if st.Memory != nil {
		out.Memory = memoryOf(st.Memory, at)
		out.Swap = swapOf(st.Memory, at)
	}
	if st.IO != nil && st.IO.PSI != nil {
		out.Io = &runtimeapi.IoUsage{Timestamp: at, Psi: psiOf(st.IO.PSI)}
	}
	return out, &st
}

// swapOf says what is swapped out, and how much more may be. cgroup v1 bounds memory and swap together.
func swapOf(m *cgroup.MemoryStats, at int64) *runtimeapi.SwapUsage {
	used, v1 := m.Stat["total_swap"]
	if !v1 {
		used = m.SwapUsage
	}
	out := &runtimeapi.SwapUsage{Timestamp: at, SwapUsageBytes: number(used)}
	top := m.SwapLimit
	if v1 {
		top -= min(m.Limit, top)
	}
	if m.SwapLimit != math.MaxUint64 {
		out.SwapAvailableBytes = number(top - min(used, top))
	}
	return out
}

func psiOf(p *cgroup.PSI) *runtimeapi.PsiStats {
	if p == nil {
		return nil
	}
	data := func(d cgroup.PSIData) *runtimeapi.PsiData {
		return &runtimeapi.PsiData{Total: d.Total, Avg10: d.Avg10, Avg60: d.Avg60, Avg300: d.Avg300}
	}
	return &runtimeapi.PsiStats{Full: data(p.Full), Some: data(p.Some)}
}

func memoryOf(m *cgroup.MemoryStats, at int64) *runtimeapi.MemoryUsage {
	working := workingSet(m)
	out := &runtimeapi.MemoryUsage{Timestamp: at, WorkingSetBytes: number(working), UsageBytes: number(m.Usage), RssBytes: number(detail(m, "total_rss", "anon")),
		PageFaults: number(detail(m, "total_pgfault", "pgfault")), MajorPageFaults: number(detail(m, "total_pgmajfault", "pgmajfault")), Psi: psiOf(m.PSI)}
	if top := limit(m.Limit); top > working {
		out.AvailableBytes = number(top - working)
	}
	return out
}

// ContainerStats measures one container.
func (s *Server) ContainerStats(ctx context.Context, r *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	i, err := s.engine.Member(r.ContainerId)
	if err != nil {
		return nil, err
	}
	of := i.Listed()
	st, _ := s.statsOf(&of)
	return &runtimeapi.ContainerStatsResponse{Stats: st}, nil
}

// ListContainerStats measures the containers that run.
func (s *Server) ListContainerStats(ctx context.Context, r *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	f := r.GetFilter()
	all, err := s.engine.MemberStates("")
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ListContainerStatsResponse{}
	for k := range all {
		i := &all[k]
		if !idMatches(i.ID, f.GetId()) || !idMatches(i.Member.Pod, f.GetPodSandboxId()) || !labelsMatch(containerMeta(i.ID, i.Member).Labels, f.GetLabelSelector()) ||
			i.State.Pid == 0 {
			continue
		}
		st, _ := s.statsOf(i)
		resp.Stats = append(resp.Stats, st)
	}
	return resp, nil
}

// StreamContainerStats is ListContainerStats in pieces.
func (s *Server) StreamContainerStats(r *runtimeapi.StreamContainerStatsRequest, st runtimeapi.RuntimeService_StreamContainerStatsServer) error {
	all, err := s.ListContainerStats(st.Context(), &runtimeapi.ListContainerStatsRequest{Filter: r.Filter})
	if err != nil {
		return err
	}
	return inPieces(all.Stats, func(part []*runtimeapi.ContainerStats) error {
		return st.Send(&runtimeapi.StreamContainerStatsResponse{ContainerStats: part})
	})
}

// podStats adds up what a pod's containers use.
func (s *Server) podStats(p *engine.PodState) (*runtimeapi.PodSandboxStats, error) {
	m := podMeta(p)
	members, err := s.engine.MemberStates(p.ID)
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixNano()
	l := &runtimeapi.LinuxPodSandboxStats{
		Cpu:     &runtimeapi.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: number(0), UsageNanoCores: number(0)},
		Memory:  &runtimeapi.MemoryUsage{Timestamp: now, WorkingSetBytes: number(0), UsageBytes: number(0), RssBytes: number(0), PageFaults: number(0), MajorPageFaults: number(0)},
		Process: &runtimeapi.ProcessUsage{Timestamp: now, ProcessCount: number(0)},
	}
	for k := range members {
		i := &members[k]
		if i.State.Pid == 0 {
			continue
		}
		c, read := s.statsOf(i)
		l.Containers = append(l.Containers, c)
		if c.Cpu != nil {
			l.Cpu.UsageCoreNanoSeconds.Value += c.Cpu.UsageCoreNanoSeconds.Value
			l.Cpu.UsageNanoCores.Value += c.Cpu.UsageNanoCores.Value
		}
		if m := c.Memory; m != nil {
			l.Memory.WorkingSetBytes.Value += m.WorkingSetBytes.Value
			l.Memory.UsageBytes.Value += m.UsageBytes.Value
			l.Memory.RssBytes.Value += m.RssBytes.Value
			l.Memory.PageFaults.Value += m.PageFaults.Value
			l.Memory.MajorPageFaults.Value += m.MajorPageFaults.Value
		}
		if read == nil {
			continue
		}
		if read.Pids != nil {
			l.Process.ProcessCount.Value += read.Pids.Current
		}
		if l.Network == nil {
			l.Network = networkOf(read.Read, engine.Interfaces(read.Pid))
		}
	}
	return &runtimeapi.PodSandboxStats{Attributes: &runtimeapi.PodSandboxAttributes{Id: p.ID, Metadata: m.Config.Metadata, Labels: m.Config.Labels, Annotations: m.Config.Annotations}, Linux: l}, nil
}

func networkOf(at time.Time, interfaces map[string]engine.InterfaceStats) *runtimeapi.NetworkUsage {
	out := &runtimeapi.NetworkUsage{Timestamp: at.UnixNano()}
	for name, n := range interfaces {
		u := &runtimeapi.NetworkInterfaceUsage{Name: name, RxBytes: number(n.RxBytes), RxErrors: number(n.RxErrors), TxBytes: number(n.TxBytes), TxErrors: number(n.TxErrors)}
		if name == "eth0" {
			out.DefaultInterface = u
		} else {
			out.Interfaces = append(out.Interfaces, u)
		}
	}
	return out
}

// PodSandboxStats measures one pod.
func (s *Server) PodSandboxStats(ctx context.Context, r *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	p, err := s.engine.Pod(r.PodSandboxId)
	if err != nil {
		return nil, err
	}
	st, err := s.podStats(&p.PodState)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: st}, nil
}

// ListPodSandboxStats measures the pods that are ready.
func (s *Server) ListPodSandboxStats(ctx context.Context, r *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	f := r.GetFilter()
	resp := &runtimeapi.ListPodSandboxStatsResponse{}
	for _, p := range s.engine.Pods() {
		if !p.Ready || !idMatches(p.ID, f.GetId()) || !labelsMatch(podMeta(&p).Config.Labels, f.GetLabelSelector()) {
			continue
		}
		st, err := s.podStats(&p)
		if err != nil {
			continue // removed meanwhile
		}
		resp.Stats = append(resp.Stats, st)
	}
	return resp, nil
}

// StreamPodSandboxStats is ListPodSandboxStats in pieces.
func (s *Server) StreamPodSandboxStats(r *runtimeapi.StreamPodSandboxStatsRequest, st runtimeapi.RuntimeService_StreamPodSandboxStatsServer) error {
	all, err := s.ListPodSandboxStats(st.Context(), &runtimeapi.ListPodSandboxStatsRequest{Filter: r.Filter})
	if err != nil {
		return err
	}
	return inPieces(all.Stats, func(part []*runtimeapi.PodSandboxStats) error {
		return st.Send(&runtimeapi.StreamPodSandboxStatsResponse{PodSandboxStats: part})
	})
}
