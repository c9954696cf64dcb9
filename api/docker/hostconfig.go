package docker

import (
	"net/netip"
	"os"
	"strconv"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"cale/engine"
	"cale/engine/ocispec"
)

// toHostConfig is the reverse of toSpec, for inspect.
func toHostConfig(s *engine.Spec) *container.HostConfig {
	initProcess := s.Init
	h := &container.HostConfig{
		LogConfig:       container.LogConfig{Type: s.Log.Driver, Config: orEmpty(s.Log.Options)},
		NetworkMode:     container.NetworkMode(s.Network.Mode),
		PortBindings:    network.PortMap{},
		RestartPolicy:   container.RestartPolicy{Name: container.RestartPolicyMode(s.Restart.Name), MaximumRetryCount: s.Restart.Retries},
		AutoRemove:      s.AutoRemove,
		VolumesFrom:     s.VolumesFrom,
		ConsoleSize:     s.ConsoleSize,
		Annotations:     s.Annotations,
		CapAdd:          s.Security.CapAdd,
		CapDrop:         s.Security.CapDrop,
		CgroupnsMode:    container.CgroupnsMode(s.CgroupnsMode),
		DNSOptions:      s.Network.DNSOptions,
		DNSSearch:       s.Network.DNSSearch,
		ExtraHosts:      s.Network.ExtraHosts,
		GroupAdd:        s.Security.GroupAdd,
		IpcMode:         container.IpcMode(s.IpcMode),
		OomScoreAdj:     s.OOMScore,
		PidMode:         container.PidMode(s.PidMode),
		Privileged:      s.Security.Privileged,
		PublishAllPorts: s.PublishAll,
		ReadonlyRootfs:  s.Security.ReadOnly,
		Tmpfs:           s.Tmpfs,
		UTSMode:         container.UTSMode(s.UTSMode),
		UsernsMode:      container.UsernsMode(s.UsernsMode),
		ShmSize:         s.ShmSize,
		Sysctls:         s.Sysctls,
		StorageOpt:      s.StorageOpt,
		Runtime:         s.Runtime,
		MaskedPaths:     s.Security.MaskedPaths,
		ReadonlyPaths:   s.Security.ReadonlyPaths,
		Umask:           s.Umask,
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = "json-file"
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = "no"
	}
	if h.NetworkMode == "" {
		h.NetworkMode = "bridge"
	}
	if h.IpcMode == "" {
		h.IpcMode = "private"
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = "private"
	}
	if h.Runtime == "" {
		h.Runtime = "cale"
	}
	if h.ShmSize == 0 {
		h.ShmSize = 64 << 20
	}
	if !h.Privileged && s.Security.SystemPaths != "unconfined" {
		if h.MaskedPaths == nil {
			h.MaskedPaths = ocispec.MaskedPaths()
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = ocispec.ReadonlyPaths()
		}
	}
	if initProcess {
		h.Init = &initProcess
	}
	// Scripts print these: none is [], not nothing.
	h.DNS, h.DNSOptions, h.DNSSearch = []netip.Addr{}, orNone(h.DNSOptions), orNone(h.DNSSearch)
	for _, a := range s.Network.DNS {
		if addr, err := netip.ParseAddr(a); err == nil {
			h.DNS = append(h.DNS, addr)
		}
	}
	for _, p := range s.Network.Publish {
		b := network.PortBinding{HostIP: p.HostIP}
		if p.HostPort != 0 {
			b.HostPort = strconv.Itoa(int(p.HostPort))
		}
		if p.HostPortEnd != 0 {
			b.HostPort += "-" + strconv.Itoa(int(p.HostPortEnd))
		}
		if port, ok := dockerPort(p.Port); ok {
			h.PortBindings[port] = append(h.PortBindings[port], b)
		}
	}
	for _, m := range s.Mounts {
		fromMount(h, m)
	}
	if s.Security.WritableCgroups {
		h.SecurityOpt = append(h.SecurityOpt, "writable-cgroups")
	}
	if s.Security.NoNewPrivs {
		h.SecurityOpt = append(h.SecurityOpt, "no-new-privileges")
	}
	if s.Security.Seccomp != "" {
		h.SecurityOpt = append(h.SecurityOpt, "seccomp="+s.Security.Seccomp)
	}
	if s.Security.AppArmor != "" {
		h.SecurityOpt = append(h.SecurityOpt, "apparmor="+s.Security.AppArmor)
	}
	for _, l := range s.Security.Labels {
		h.SecurityOpt = append(h.SecurityOpt, "label="+l)
	}
	r := &s.Resources
	h.Resources = container.Resources{
		Memory: r.Memory, MemoryReservation: r.MemoryReservation, MemorySwap: r.MemorySwap, MemorySwappiness: r.MemorySwappiness,
		NanoCPUs: r.NanoCPUs, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota, CPUShares: r.CPUShares,
		CPURealtimePeriod: r.CPURealtimePeriod, CPURealtimeRuntime: r.CPURealtimeRuntime,
		CpusetCpus: r.CpusetCPUs, CpusetMems: r.CpusetMems, PidsLimit: r.Pids, BlkioWeight: r.BlkioWeight,
		OomKillDisable: r.OOMKillDisable, DeviceCgroupRules: r.DeviceCgroupRules, CgroupParent: s.CgroupParent,
	}
	for _, d := range r.BlkioWeightDevice {
		h.BlkioWeightDevice = append(h.BlkioWeightDevice, &blkiodev.WeightDevice{Path: d.Path, Weight: uint16(d.Rate)})
	}
	for _, l := range []struct {
		from []engine.DeviceRate
		to   *[]*blkiodev.ThrottleDevice
	}{
		{r.BlkioReadBps, &h.BlkioDeviceReadBps}, {r.BlkioWriteBps, &h.BlkioDeviceWriteBps},
		{r.BlkioReadIOps, &h.BlkioDeviceReadIOps}, {r.BlkioWriteIOps, &h.BlkioDeviceWriteIOps},
	} {
		for _, d := range l.from {
			*l.to = append(*l.to, &blkiodev.ThrottleDevice{Path: d.Path, Rate: d.Rate})
		}
	}
	for _, u := range r.Ulimits {
		h.Ulimits = append(h.Ulimits, &container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, d := range r.Devices {
		h.Devices = append(h.Devices, container.DeviceMapping{PathOnHost: d.Host, PathInContainer: d.Container, CgroupPermissions: d.Permissions})
	}
	for _, d := range r.DeviceRequests {
		h.DeviceRequests = append(h.DeviceRequests, container.DeviceRequest{Driver: d.Driver, Count: d.Count, DeviceIDs: d.IDs,
			Capabilities: d.Capabilities, Options: d.Options})
	}
	return h
}

// fromMount says a mount as it was asked for, in the short form or the long one.
func fromMount(h *container.HostConfig, m engine.Mount) {
	if m.Short != "" {
		h.Binds = append(h.Binds, m.Short)
		return
	}
	d := mount.Mount{Type: mount.Type(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	switch m.Type {
	case "bind":
		o := mount.BindOptions{Propagation: mount.Propagation(m.Propagation), NonRecursive: m.NonRecursive, CreateMountpoint: m.CreateSource,
			ReadOnlyForceRecursive: m.ForceRecursive, ReadOnlyNonRecursive: m.ReadOnly && !m.RecursiveReadOnly}
		if o != (mount.BindOptions{}) {
			d.BindOptions = &o
		}
	case "volume":
		o := mount.VolumeOptions{NoCopy: m.NoCopy, Labels: m.Labels, Subpath: m.Subpath}
		if m.Driver != "" || len(m.DriverOpts) > 0 {
			o.DriverConfig = &mount.Driver{Name: m.Driver, Options: m.DriverOpts}
		}
		if o.NoCopy || o.Subpath != "" || len(o.Labels) > 0 || o.DriverConfig != nil {
			d.VolumeOptions = &o
		}
	case "image":
		if m.Subpath != "" {
			d.ImageOptions = &mount.ImageOptions{Subpath: m.Subpath}
		}
	case "tmpfs":
		if m.TmpfsSize != 0 || m.TmpfsMode != 0 || len(m.TmpfsOptions) > 0 {
			d.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: m.TmpfsSize, Mode: os.FileMode(m.TmpfsMode)}
			for _, opt := range m.TmpfsOptions {
				d.TmpfsOptions.Options = append(d.TmpfsOptions.Options, []string{opt})
			}
		}
	}
	h.Mounts = append(h.Mounts, d)
}

func dockerPort(p engine.Port) (network.Port, bool) {
	return network.PortFrom(p.Number, network.IPProtocol(p.Protocol))
}
