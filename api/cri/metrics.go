package cri

import (
	"context"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
	"cale/runtime/cgroup"
)

// sample is what was read of one container, or of a pod.
type sample struct {
	engine.Counters
	processes engine.ProcessCounters
	limits    *engine.Resources
	written   written
	fs        unix.Statfs_t
}

// point is one value of a metric, with the values of the metric's own labels.
type point struct {
	value  uint64
	labels []string
}

func one(v uint64) []point { return []point{{value: v}} }

// metric is something that is measured, named and labelled as cAdvisor does.
type metric struct {
	name, help string
	kind       runtimeapi.MetricType
	labels     []string // its own, beside those that all have
	read       func(*sample) []point
}

// commonLabels are what every metric has: the group's path, the container's name in the pod, its image, its id, and
// the pod's name and namespace.
var commonLabels = []string{"container", "id", "image", "name", "namespace", "pod"}

const (
	counter = runtimeapi.MetricType_COUNTER
	gauge   = runtimeapi.MetricType_GAUGE
)

// ListMetricDescriptors says what ListPodSandboxMetrics measures.
func (s *Server) ListMetricDescriptors(context.Context, *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	resp := &runtimeapi.ListMetricDescriptorsResponse{}
	for _, list := range [][]metric{containerMetrics(), podMetrics()} {
		for _, m := range list {
			resp.Descriptors = append(resp.Descriptors, &runtimeapi.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: slices.Concat(commonLabels, m.labels)})
		}
	}
	return resp, nil
}

// ListPodSandboxMetrics measures the pods that are ready, and their containers.
func (s *Server) ListPodSandboxMetrics(ctx context.Context, _ *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	resp := &runtimeapi.ListPodSandboxMetricsResponse{}
	members, err := s.engine.Members("")
	if err != nil {
		return nil, err
	}
	byPod := map[string][]*engine.Info{}
	for k := range members {
		byPod[members[k].Spec.Member.Pod] = append(byPod[members[k].Spec.Member.Pod], &members[k])
	}
	for _, p := range s.engine.Pods() {
		if p.Ready {
			resp.PodMetrics = append(resp.PodMetrics, s.podMetrics(&p, byPod[p.ID]))
		}
	}
	return resp, ctx.Err()
}

// StreamPodSandboxMetrics is ListPodSandboxMetrics in pieces.
func (s *Server) StreamPodSandboxMetrics(_ *runtimeapi.StreamPodSandboxMetricsRequest, st runtimeapi.RuntimeService_StreamPodSandboxMetricsServer) error {
	all, err := s.ListPodSandboxMetrics(st.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		return err
	}
	return inPieces(all.PodMetrics, func(part []*runtimeapi.PodSandboxMetrics) error {
		return st.Send(&runtimeapi.StreamPodSandboxMetricsResponse{PodSandboxMetrics: part})
	})
}

func (s *Server) podMetrics(p *engine.PodState, members []*engine.Info) *runtimeapi.PodSandboxMetrics {
	m := podMeta(p).Config.Metadata
	out := &runtimeapi.PodSandboxMetrics{PodSandboxId: p.ID}
	networked := false
	for _, i := range members {
		if i.State.Pid == 0 {
			continue
		}
		c, err := s.engine.Counters(i.ID)
		if err != nil {
			continue // it has ended meanwhile
		}
		x := &sample{Counters: c, processes: s.engine.ProcessCounters(&c), limits: &i.Spec.Resources, written: s.size(i.ID)}
		_ = unix.Statfs(s.writtenAt, &x.fs) // zeros, where there is no answer
		meta := containerMeta(i.ID, i.Spec.Member)
		labels := []string{meta.Metadata.Name, c.Cgroup, meta.Image.Image, i.ID, m.Namespace, m.Name}
		out.ContainerMetrics = append(out.ContainerMetrics, &runtimeapi.ContainerMetrics{ContainerId: i.ID, Metrics: measure(containerMetrics(), x, labels)})
		if !networked {
			networked = true
			out.Metrics = measure(podMetrics(), x, []string{"POD", path.Dir(c.Cgroup), "", p.ID, m.Namespace, m.Name})
		}
	}
	return out
}

func measure(list []metric, x *sample, labels []string) (out []*runtimeapi.Metric) {
	for _, m := range list {
		for _, p := range m.read(x) {
			out = append(out, &runtimeapi.Metric{Name: m.name, MetricType: m.kind, LabelValues: slices.Concat(labels, p.labels), Value: number(p.value)})
		}
	}
	return out
}

// seconds rounds nanoseconds down: the protocol has whole numbers only.
func seconds(nanoseconds uint64) uint64 { return nanoseconds / uint64(time.Second) }

// limit is a number that the kernel has; what is unlimited is 0, as in cAdvisor.
func limit(v uint64) uint64 {
	if v >= math.MaxInt64/4096*4096 {
		return 0
	}
	return v
}

// cpuMetric and its like read one part of a group's figures, which may be missing.
func cpuMetric(read func(*cgroup.CPUStats) uint64) func(*sample) []point {
	return func(x *sample) []point {
		if x.CPU == nil {
			return nil
		}
		return one(read(x.CPU))
	}
}

func memoryMetric(read func(*cgroup.MemoryStats) uint64) func(*sample) []point {
	return func(x *sample) []point {
		if x.Memory == nil {
			return nil
		}
		return one(read(x.Memory))
	}
}

func networkMetric(read func(engine.InterfaceStats) uint64) func(*sample) []point {
	return func(x *sample) (out []point) {
		for name, n := range x.Networks {
			out = append(out, point{read(n), []string{name}})
		}
		return out
	}
}

// deviceMetric reads one kind of operation on block devices; unit turns the counters into what is measured.
func deviceMetric(op string, list func(*cgroup.IOStats) []cgroup.IOEntry) func(*sample) []point {
	return func(x *sample) (out []point) {
		if x.IO == nil {
			return nil
		}
		for _, e := range list(x.IO) {
			if strings.EqualFold(e.Op, op) {
				out = append(out, point{e.Value, []string{deviceName(e)}})
			}
		}
		return out
	}
}

func deviceName(e cgroup.IOEntry) string {
	return strconv.FormatUint(e.Major, 10) + ":" + strconv.FormatUint(e.Minor, 10)
}

// pressureMetric reads how long tasks waited for something: full is all of them at once. It is told in seconds.
func pressureMetric(of func(*sample) *cgroup.PSI, full bool) func(*sample) []point {
	return func(x *sample) []point {
		p := of(x)
		if p == nil {
			return nil
		}
		d := p.Some
		if full {
			d = p.Full
		}
		return one(d.Total / 1e6)
	}
}

// detail finds a figure of memory.stat, which cgroup v1 and v2 name differently.
func detail(m *cgroup.MemoryStats, names ...string) uint64 {
	for _, n := range names {
		if v, ok := m.Stat[n]; ok {
			return v
		}
	}
	return 0
}

// workingSet is what can't be had back without swapping.
func workingSet(m *cgroup.MemoryStats) uint64 {
	idle := detail(m, "total_inactive_file", "inactive_file")
	return m.Usage - min(idle, m.Usage)
}
