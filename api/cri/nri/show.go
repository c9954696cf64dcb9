package nri

import (
	"path"
	"slices"
	"time"

	"github.com/containerd/nri/pkg/api"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/api/cri"
	"cale/engine"
)

// pod shows a pod as plug-ins know them.
func pod(p *cri.PluginPod) *api.PodSandbox {
	c := p.Request.GetConfig()
	out := &api.PodSandbox{Id: p.ID, Name: c.GetMetadata().GetName(), Uid: c.GetMetadata().GetUid(), Namespace: c.GetMetadata().GetNamespace(),
		Labels: c.GetLabels(), Annotations: c.GetAnnotations(), RuntimeHandler: p.Request.GetRuntimeHandler(), Pid: uint32(p.Pid),
		Linux: &api.LinuxPodSandbox{CgroupParent: p.CgroupParent, PodOverhead: linux(c.GetLinux().GetOverhead()), PodResources: linux(c.GetLinux().GetResources())}}
	if p.NetNS != "" {
		out.Linux.Namespaces = append(out.Linux.Namespaces, &api.LinuxNamespace{Type: "network", Path: p.NetNS})
	}
	for _, ip := range p.IPs {
		out.Ips = append(out.Ips, ip.String())
	}
	return out
}

// container shows a container: what was asked for, and what became of it.
func container(c *cri.PluginContainer) *api.Container {
	m := c.Config
	out := &api.Container{Id: c.ID, PodSandboxId: c.Pod.ID, Name: m.GetMetadata().GetName(), State: state(c.State.Status), Labels: m.GetLabels(),
		Annotations: m.GetAnnotations(), Args: slices.Concat(m.GetCommand(), m.GetArgs()), Env: c.Spec.Env, Pid: uint32(c.State.Pid),
		StartedAt: stamp(c.State.StartedAt), FinishedAt: stamp(c.State.FinishedAt), ExitCode: int32(c.State.ExitCode),
		StatusMessage: c.State.Error,
		Linux:         &api.LinuxContainer{Resources: resources(&c.Spec.Resources), OomScoreAdj: api.Int(c.Spec.OOMScore), CgroupsPath: path.Join(c.Parent, c.ID)}}
	for _, mount := range m.GetMounts() {
		out.Mounts = append(out.Mounts, &api.Mount{Source: mount.HostPath, Destination: mount.ContainerPath, Type: "bind"})
	}
	for _, d := range m.GetCDIDevices() {
		out.CDIDevices = append(out.CDIDevices, &api.CDIDevice{Name: d.Name})
	}
	for _, u := range c.Spec.Resources.Ulimits {
		out.Rlimits = append(out.Rlimits, &api.POSIXRlimit{Type: "RLIMIT_" + u.Name, Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return out
}

func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func state(s engine.Status) api.ContainerState {
	switch s {
	case engine.Created:
		return api.ContainerState_CONTAINER_CREATED
	case engine.Running:
		return api.ContainerState_CONTAINER_RUNNING
	case engine.Paused:
		return api.ContainerState_CONTAINER_PAUSED
	case engine.Exited, engine.Dead, engine.Removing:
		return api.ContainerState_CONTAINER_STOPPED
	}
	return api.ContainerState_CONTAINER_UNKNOWN
}

// resources shows limits; zero is none.
func resources(r *engine.Resources) *api.LinuxResources {
	out := &api.LinuxResources{Memory: &api.LinuxMemory{}, Cpu: &api.LinuxCPU{Cpus: r.CpusetCPUs, Mems: r.CpusetMems}}
	set := func(to **api.OptionalInt64, v int64) {
		if v != 0 {
			*to = api.Int64(v)
		}
	}
	setU := func(to **api.OptionalUInt64, v int64) {
		if v > 0 {
			*to = api.UInt64(uint64(v))
		}
	}
	set(&out.Memory.Limit, r.Memory)
	set(&out.Memory.Reservation, r.MemoryReservation)
	set(&out.Memory.Swap, r.MemorySwap)
	set(&out.Cpu.Quota, r.CPUQuota)
	setU(&out.Cpu.Period, r.CPUPeriod)
	setU(&out.Cpu.Shares, r.CPUShares)
	return out
}

// linux shows limits that the kubelet gives.
func linux(r *runtimeapi.LinuxContainerResources) *api.LinuxResources {
	if r == nil {
		return nil
	}
	return resources(&engine.Resources{Memory: r.MemoryLimitInBytes, MemorySwap: r.MemorySwapLimitInBytes, CPUQuota: r.CpuQuota, CPUPeriod: r.CpuPeriod,
		CPUShares: r.CpuShares, CpusetCPUs: r.CpusetCpus, CpusetMems: r.CpusetMems})
}
