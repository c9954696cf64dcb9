// Package metrics tells what the engine and its containers do in Prometheus' text format
// (https://prometheus.io/docs/instrumenting/exposition_formats). Containers' figures have cAdvisor's names, so that
// dashboards made for those show these.
package metrics

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"cale/engine"
	"cale/runtime/cgroup"
)

const (
	atOnce   = 8                // containers asked at the same time
	patience = 10 * time.Second // for one container's figures
)

// Handler answers GET /metrics with the figures of an engine whose programs have a version.
func Handler(e *engine.Engine, version string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		var p page
		p.engine(r.Context(), e, version)
		p.containers(r.Context(), e)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		w.Write(p.Bytes())
	})
	return mux
}

// page is an answer being written.
type page struct{ bytes.Buffer }

func (p *page) family(name, kind, help string) {
	fmt.Fprintf(p, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes one value; labels are names and values in turn.
func (p *page) sample(name string, value float64, labels ...string) {
	p.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		p.WriteByte("{,"[min(i, 1)])
		p.WriteString(labels[i] + `="` + label(labels[i+1]) + `"`)
	}
	if len(labels) > 0 {
		p.WriteByte('}')
	}
	p.WriteByte(' ')
	p.Write(strconv.AppendFloat(nil, value, 'g', -1, 64))
	p.WriteByte('\n')
}

// label writes a label's value. Interfaces have names that containers give them: one that is no UTF-8 would have readers
// refuse the whole page.
func label(value string) string { return escaped.Replace(strings.ToValidUTF8(value, "\uFFFD")) }

var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (p *page) engine(ctx context.Context, e *engine.Engine, version string) {
	i := e.Info(ctx)
	p.family("engine_daemon_engine_info", "gauge", "The engine, by what it is and runs on.")
	p.sample("engine_daemon_engine_info", 1, "version", version, "kernel", i.KernelVersion, "architecture", i.Architecture, "cgroup", i.CgroupVersion)
	p.family("engine_daemon_container_states_containers", "gauge", "Containers by state.")
	for _, s := range []struct {
		name string
		n    int
	}{{"running", i.Running}, {"paused", i.Paused}, {"stopped", i.Stopped}} {
		p.sample("engine_daemon_container_states_containers", float64(s.n), "state", s.name)
	}
	p.family("engine_daemon_images", "gauge", "Images in the store.")
	p.sample("engine_daemon_images", float64(i.Images))
	p.family("go_goroutines", "gauge", "Goroutines of the engine's process.")
	p.sample("go_goroutines", float64(runtime.NumGoroutine()))
}

// measured is a container and what it uses, if it runs.
type measured struct {
	info  engine.Info
	stats *engine.Stats
}

func (m *measured) labels(more ...string) []string {
	return append([]string{"id", m.info.ID, "name", m.info.Name, "image", m.info.Spec.Image}, more...)
}

// containers writes each family with all containers' samples, as the format wants it.
func (p *page) containers(ctx context.Context, e *engine.Engine) {
	list := measure(ctx, e)
	for _, f := range families {
		p.family(f.name, f.kind, f.help)
		for i := range list {
			if m := &list[i]; m.stats != nil || f.always {
				f.samples(m, func(value float64, labels ...string) { p.sample(f.name, value, m.labels(labels...)...) })
			}
		}
	}
}

func measure(ctx context.Context, e *engine.Engine) []measured {
	infos := e.List(ctx, false)
	list := make([]measured, len(infos))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, info := range infos {
		list[i].info = info
		if info.State.Status != engine.Running {
			continue
		}
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			if s, err := e.Stats(ctx, info.ID); err == nil { // else it ended meanwhile
				list[i].stats = &s
			}
			return nil
		})
	}
	g.Wait() // its functions have no errors
	return list
}

type add func(value float64, labels ...string)

// families are what is told of containers: of those that run, or always of all.
var families = []struct {
	name, kind, help string
	always           bool
	samples          func(m *measured, add add)
}{
	{"container_start_time_seconds", "gauge", "When the container was started last, in seconds since 1970.", true, func(m *measured, add add) {
		if t := m.info.State.StartedAt; !t.IsZero() {
			add(float64(t.UnixNano()) / 1e9)
		}
	}},
	{"container_running", "gauge", "Whether the container runs.", true, func(m *measured, add add) { add(truth(m.info.State.Status == engine.Running)) }},
	{"container_restarts_total", "counter", "Restarts by the container's policy.", true, func(m *measured, add add) { add(float64(m.info.Restarts)) }},
	{"container_healthy", "gauge", "Whether the health check of a container that has one is content.", true, func(m *measured, add add) {
		if h := m.info.State.Health; h != nil {
			add(truth(h.Status == "healthy"))
		}
	}},
	{"container_oom_killed", "gauge", "Whether the last run ended for want of memory.", true, func(m *measured, add add) { add(truth(m.info.State.OOMKilled)) }},
	{"container_cpu_usage_seconds_total", "counter", "Processor time used.", false, func(m *measured, add add) { add(seconds(m.stats.CPU.Total)) }},
	{"container_cpu_user_seconds_total", "counter", "Processor time used by the container's own code.", false, func(m *measured, add add) { add(seconds(m.stats.CPU.User)) }},
	{"container_cpu_system_seconds_total", "counter", "Processor time used by the kernel for it.", false, func(m *measured, add add) { add(seconds(m.stats.CPU.Kernel)) }},
	{"container_cpu_cfs_throttled_seconds_total", "counter", "Time that the processor limit kept it waiting.", false, func(m *measured, add add) { add(seconds(m.stats.CPU.ThrottledFor)) }},
	{"container_memory_usage_bytes", "gauge", "Memory used, caches included.", false, func(m *measured, add add) { add(float64(m.stats.Memory.Usage)) }},
	{"container_memory_working_set_bytes", "gauge", "Memory used without caches that are not in use.", false, func(m *measured, add add) {
		d := m.stats.Memory.Detail
		idle := max(d["inactive_file"], d["total_inactive_file"])
		add(float64(m.stats.Memory.Usage - min(idle, m.stats.Memory.Usage)))
	}},
	{"container_spec_memory_limit_bytes", "gauge", "The bound on its memory.", false, func(m *measured, add add) { add(float64(m.stats.Memory.Limit)) }},
	{"container_memory_failcnt", "counter", "Times that the bound was met.", false, func(m *measured, add add) { add(float64(m.stats.Memory.Failcnt)) }},
	{"container_processes", "gauge", "Tasks.", false, func(m *measured, add add) { add(float64(m.stats.Pids.Current)) }},
	{"container_fs_reads_bytes_total", "counter", "Bytes read from block devices.", false, blocks("read")},
	{"container_fs_writes_bytes_total", "counter", "Bytes written to block devices.", false, blocks("write")},
	{"container_pressure_cpu_waiting_seconds_total", "counter", "Time some task waited for a processor.", false, waited(cpuPressure, false)},
	{"container_pressure_memory_waiting_seconds_total", "counter", "Time some task waited for memory.", false, waited(memoryPressure, false)},
	{"container_pressure_memory_stalled_seconds_total", "counter", "Time all tasks waited for memory.", false, waited(memoryPressure, true)},
	{"container_pressure_io_waiting_seconds_total", "counter", "Time some task waited for input or output.", false, waited(ioPressure, false)},
	{"container_pressure_io_stalled_seconds_total", "counter", "Time all tasks waited for input or output.", false, waited(ioPressure, true)},
	{"container_network_receive_bytes_total", "counter", "Bytes received.", false, interfaces(func(s engine.InterfaceStats) uint64 { return s.RxBytes })},
	{"container_network_receive_packets_total", "counter", "Packets received.", false, interfaces(func(s engine.InterfaceStats) uint64 { return s.RxPackets })},
	{"container_network_transmit_bytes_total", "counter", "Bytes sent.", false, interfaces(func(s engine.InterfaceStats) uint64 { return s.TxBytes })},
	{"container_network_transmit_packets_total", "counter", "Packets sent.", false, interfaces(func(s engine.InterfaceStats) uint64 { return s.TxPackets })},
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(nanoseconds uint64) float64 { return float64(nanoseconds) / 1e9 }

// blocks adds an operation's bytes by device.
func blocks(op string) func(*measured, add) {
	return func(m *measured, add add) {
		for _, b := range m.stats.Block {
			if strings.EqualFold(b.Op, op) {
				add(float64(b.Count), "device", fmt.Sprintf("%d:%d", b.Major, b.Minor))
			}
		}
	}
}

func cpuPressure(p *engine.Pressure) *cgroup.PSI    { return p.CPU }
func memoryPressure(p *engine.Pressure) *cgroup.PSI { return p.Memory }
func ioPressure(p *engine.Pressure) *cgroup.PSI     { return p.IO }

// waited adds the time that tasks waited for one thing, where the kernel counts it: full is all of them at once.
func waited(of func(*engine.Pressure) *cgroup.PSI, full bool) func(*measured, add) {
	return func(m *measured, add add) {
		p := of(&m.stats.Pressure)
		if p == nil {
			return
		}
		micros := p.Some.Total
		if full {
			micros = p.Full.Total
		}
		add(float64(micros) / 1e6)
	}
}

func interfaces(value func(engine.InterfaceStats) uint64) func(*measured, add) {
	return func(m *measured, add add) {
		var names []string
		for name := range m.stats.Networks {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			add(float64(value(m.stats.Networks[name])), "interface", name)
		}
	}
}
