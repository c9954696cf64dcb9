package docker

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"cale/engine"
)

// createRequest is a container's creation as clients send it: Docker's type, with fields that older versions of the
// API had elsewhere.
type createRequest struct {
	container.CreateRequest
	MacAddress string // before 1.44 of the container, then of its endpoint

	kernelMemory bool // a limit that the API once had was asked for
}

// UnmarshalJSON also looks for what Docker's type has no more.
func (c *createRequest) UnmarshalJSON(raw []byte) error {
	type plain createRequest
	if err := json.Unmarshal(raw, (*plain)(c)); err != nil {
		return err
	}
	var old struct{ HostConfig struct{ KernelMemory int64 } }
	if bytes.Contains(raw, []byte(`"KernelMemory"`)) {
		if err := json.Unmarshal(raw, &old); err != nil {
			return err
		}
	}
	c.kernelMemory = old.HostConfig.KernelMemory > 0
	return nil
}

// warnings say what of a request has no effect.
func (c *createRequest) warnings() []string {
	if c.kernelMemory {
		return []string{noKernelMemory}
	}
	return []string{}
}

// noKernelMemory: the limit is gone from the kernel, and from the API since 1.42.
const noKernelMemory = "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Kernel memory limitation discarded."

// toSpec translates a request to create a container. It refuses what the engine has no field for.
func toSpec(name, platform string, in *createRequest) (engine.Spec, error) {
	c, h := in.Config, in.HostConfig
	if c == nil {
		return engine.Spec{}, invalid("config cannot be empty in order to create a container")
	}
	if h == nil {
		h = &container.HostConfig{}
	}
	if err := refuse(c, h); err != nil {
		return engine.Spec{}, err
	}
	s := engine.Spec{
		Name: strings.TrimPrefix(name, "/"), Image: c.Image, Platform: platform,
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir,
		Hostname: c.Hostname, Domain: c.Domainname, Labels: c.Labels,
		StopSignal: c.StopSignal, StopTimeout: c.StopTimeout,
		TTY: c.Tty, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce, ConsoleSize: h.ConsoleSize,
		AttachStdin: c.AttachStdin, AttachStdout: c.AttachStdout, AttachStderr: c.AttachStderr,
		Tmpfs: h.Tmpfs, AutoRemove: h.AutoRemove, PublishAll: h.PublishAllPorts,
		Init: h.Init != nil && *h.Init, Runtime: h.Runtime, ShmSize: h.ShmSize, Sysctls: h.Sysctls,
		OOMScore: h.OomScoreAdj, Annotations: h.Annotations,
		PidMode: string(h.PidMode), IpcMode: string(h.IpcMode), UTSMode: string(h.UTSMode),
		CgroupnsMode: string(h.CgroupnsMode), UsernsMode: string(h.UsernsMode),
		VolumesFrom: h.VolumesFrom, CgroupParent: h.CgroupParent,
		Log:     engine.Log{Driver: h.LogConfig.Type, Options: h.LogConfig.Config},
		Restart: engine.Restart{Name: string(h.RestartPolicy.Name), Retries: h.RestartPolicy.MaximumRetryCount},
	}
	for p := range c.ExposedPorts {
		s.Exposed = append(s.Exposed, enginePort(p))
	}
	for v := range c.Volumes {
		if !strings.HasPrefix(v, "/") {
			return s, invalid("invalid volume specification: '%s': mount path must be absolute", v)
		}
		s.AnonymousVolumes = append(s.AnonymousVolumes, v)
	}
	sort.Strings(s.AnonymousVolumes)
	if hc := c.Healthcheck; hc != nil {
		s.Health = &engine.Health{Test: hc.Test, Interval: hc.Interval, Timeout: hc.Timeout, StartPeriod: hc.StartPeriod, StartInterval: hc.StartInterval, Retries: hc.Retries}
	}
	var err error
	if s.Network, err = toNetwork(in, h); err != nil {
		return s, err
	}
	if c.NetworkDisabled {
		s.Network.Mode = "none"
	}
	for _, b := range h.Binds {
		m, err := parseBind(b)
		if err != nil {
			return s, err
		}
		if m.Type == "volume" {
			m.Driver = h.VolumeDriver
		}
		s.Mounts = append(s.Mounts, m)
	}
	for _, m := range h.Mounts {
		em, err := toMount(m)
		if err != nil {
			return s, err
		}
		s.Mounts = append(s.Mounts, em)
	}
	if s.Resources, err = toResources(&h.Resources); err != nil {
		return s, err
	}
	s.Security, err = toSecurity(h)
	return s, err
}

func toNetwork(in *createRequest, h *container.HostConfig) (engine.Network, error) {
	n := engine.Network{Mode: string(h.NetworkMode), MAC: in.MacAddress, DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions, ExtraHosts: h.ExtraHosts}
	for _, a := range h.DNS {
		n.DNS = append(n.DNS, a.String())
	}
	ports := make([]network.Port, 0, len(h.PortBindings))
	for p := range h.PortBindings {
		ports = append(ports, p)
	}
	sort.Slice(ports, func(i, j int) bool { return ports[i].String() < ports[j].String() })
	for _, p := range ports {
		bindings := h.PortBindings[p]
		if len(bindings) == 0 {
			bindings = []network.PortBinding{{}}
		}
		for _, b := range bindings {
			pub := engine.Publish{Port: enginePort(p), HostIP: b.HostIP}
			lo, hi, isRange := strings.Cut(b.HostPort, "-")
			var err error
			if lo != "" {
				if pub.HostPort, err = parsePort(lo); err != nil {
					return n, err
				}
			}
			if isRange {
				if pub.HostPortEnd, err = parsePort(hi); err != nil {
					return n, err
				}
				if pub.HostPortEnd < pub.HostPort {
					return n, invalid("invalid port range: %s", b.HostPort)
				}
			}
			n.Publish = append(n.Publish, pub)
		}
	}
	if in.NetworkingConfig == nil {
		return n, nil
	}
	names := make([]string, 0, len(in.NetworkingConfig.EndpointsConfig))
	for name := range in.NetworkingConfig.EndpointsConfig {
		names = append(names, name)
	}
	sort.Strings(names)
	if len(names) == 1 && (n.Mode == "" || n.Mode == "default") {
		n.Mode = names[0]
	}
	for _, name := range names {
		ep := in.NetworkingConfig.EndpointsConfig[name]
		if ep == nil {
			ep = &network.EndpointSettings{}
		}
		v4, v6 := netip.Addr{}, netip.Addr{}
		if ep.IPAMConfig != nil {
			v4, v6 = ep.IPAMConfig.IPv4Address, ep.IPAMConfig.IPv6Address
		}
		if name == n.Mode || name == "bridge" && (n.Mode == "default" || n.Mode == "") {
			n.Aliases, n.IPv4, n.IPv6 = ep.Aliases, v4, v6
			if len(ep.MacAddress) > 0 {
				n.MAC = ep.MacAddress.String()
			}
			continue
		}
		n.Others = append(n.Others, engine.NetworkEndpoint{Network: name, Aliases: ep.Aliases, IPv4: v4, IPv6: v6})
	}
	return n, nil
}

func parsePort(s string) (uint16, error) {
	p, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, invalid("invalid host port %q: it must be a number from 0 to 65535", s)
	}
	return uint16(p), nil
}

func enginePort(p network.Port) engine.Port {
	return engine.Port{Number: p.Num(), Protocol: string(p.Proto())}
}

// parseBind reads Docker's short form of a mount, SOURCE:TARGET[:OPTIONS] or, of an anonymous volume, TARGET.
func parseBind(b string) (engine.Mount, error) {
	bad := func() (engine.Mount, error) { return engine.Mount{}, invalid("invalid volume specification: '%s'", b) }
	parts := strings.Split(b, ":")
	m := engine.Mount{Type: "bind", CreateSource: true}
	switch len(parts) {
	case 1:
		m.Target = parts[0]
	case 2:
		m.Source, m.Target = parts[0], parts[1]
	case 3:
		m.Source, m.Target = parts[0], parts[1]
		for _, o := range strings.Split(parts[2], ",") {
			switch o {
			case "ro":
				m.ReadOnly = true
			case "rw", "", "z", "Z", "consistent", "cached", "delegated":
			case "nocopy":
				m.NoCopy = true
			case "private", "rprivate", "slave", "rslave", "shared", "rshared":
				m.Propagation = o
			default:
				return engine.Mount{}, invalid("invalid mode: %s", parts[2])
			}
		}
	default:
		return bad()
	}
	if m.Target == "" || len(parts) > 1 && m.Source == "" {
		return bad()
	}
	if !strings.HasPrefix(m.Source, "/") {
		m.Type, m.CreateSource = "volume", false
	}
	if !strings.HasPrefix(m.Target, "/") {
		return engine.Mount{}, invalid("invalid volume specification: '%s': invalid mount config for type %q: invalid mount path: '%s' mount path must be absolute", b, m.Type, m.Target)
	}
	return m, nil
}

func toMount(m mount.Mount) (engine.Mount, error) {
	e := engine.Mount{Type: string(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	if !strings.HasPrefix(m.Target, "/") {
		return e, invalid("invalid mount config for type %q: invalid mount path: '%s' mount path must be absolute", m.Type, m.Target)
	}
	switch m.Type {
	case mount.TypeBind:
		if !strings.HasPrefix(m.Source, "/") {
			return e, invalid("invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be absolute", m.Source)
		}
		if o := m.BindOptions; o != nil {
			e.Propagation, e.NonRecursive, e.CreateSource = string(o.Propagation), o.NonRecursive, o.CreateMountpoint
			if o.ReadOnlyForceRecursive || o.ReadOnlyNonRecursive {
				return e, notBuilt{"the choice of recursion for a read-only bind mount"}
			}
		}
	case mount.TypeVolume:
		if o := m.VolumeOptions; o != nil {
			e.NoCopy, e.Labels, e.Subpath = o.NoCopy, o.Labels, o.Subpath
			if o.DriverConfig != nil {
				e.Driver, e.DriverOpts = o.DriverConfig.Name, o.DriverConfig.Options
			}
		}
	case mount.TypeTmpfs:
		if m.Source != "" {
			return e, invalid("invalid mount config for type \"tmpfs\": field Source must not be specified")
		}
		if o := m.TmpfsOptions; o != nil {
			if len(o.Options) > 0 {
				return e, notBuilt{"further options of a tmpfs mount"}
			}
			e.TmpfsSize, e.TmpfsMode = o.SizeBytes, uint32(o.Mode)
		}
	case mount.TypeImage:
		return e, notBuilt{"a mount of type image"}
	default:
		return e, invalid("invalid mount config: mount type unknown: %q", m.Type)
	}
	return e, nil
}

func toResources(r *container.Resources) (engine.Resources, error) {
	e := engine.Resources{
		Memory: r.Memory, MemoryReservation: r.MemoryReservation, MemorySwap: r.MemorySwap, MemorySwappiness: r.MemorySwappiness,
		NanoCPUs: r.NanoCPUs, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota, CPUShares: r.CPUShares,
		CPURealtimePeriod: r.CPURealtimePeriod, CPURealtimeRuntime: r.CPURealtimeRuntime,
		CpusetCPUs: r.CpusetCpus, CpusetMems: r.CpusetMems, Pids: r.PidsLimit, BlkioWeight: r.BlkioWeight,
		OOMKillDisable: r.OomKillDisable, DeviceCgroupRules: r.DeviceCgroupRules,
	}
	for _, u := range r.Ulimits {
		if u != nil {
			e.Ulimits = append(e.Ulimits, engine.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
		}
	}
	for _, d := range r.Devices {
		e.Devices = append(e.Devices, engine.Device{Host: d.PathOnHost, Container: d.PathInContainer, Permissions: d.CgroupPermissions})
	}
	if e.Memory < 0 || e.NanoCPUs < 0 || e.CPUShares < 0 {
		return e, invalid("limits can't be negative")
	}
	return e, nil
}

func toSecurity(h *container.HostConfig) (engine.Security, error) {
	s := engine.Security{
		Privileged: h.Privileged, ReadOnly: h.ReadonlyRootfs, CapAdd: h.CapAdd, CapDrop: h.CapDrop, GroupAdd: h.GroupAdd,
		MaskedPaths: h.MaskedPaths, ReadonlyPaths: h.ReadonlyPaths,
	}
	for _, o := range h.SecurityOpt {
		key, value, ok := strings.Cut(o, "=")
		if !ok {
			if key, value, ok = strings.Cut(o, ":"); !ok {
				key = o
			}
		}
		switch key {
		case "no-new-privileges":
			switch value {
			case "", "true":
				s.NoNewPrivs = true
			case "false":
			default:
				return s, invalid("invalid --security-opt: %q", o)
			}
		case "seccomp":
			if value != "unconfined" && value != "builtin" && !json.Valid([]byte(value)) {
				return s, invalid("seccomp profile is not valid JSON: the client sends the profile's text")
			}
			if value != "builtin" {
				s.Seccomp = value
			}
		case "apparmor":
			s.AppArmor = value
		case "label":
			s.Labels = append(s.Labels, value)
		case "systempaths":
			if value != "unconfined" {
				return s, invalid("invalid --security-opt: %q", o)
			}
			s.SystemPaths = value
		default:
			return s, invalid("invalid --security-opt: %q", o)
		}
	}
	return s, nil
}

// refuse answers for options that clients may send and the engine can't honour.
func refuse(c *container.Config, h *container.HostConfig) error {
	r := &h.Resources
	for _, o := range []struct {
		asked bool
		what  string
	}{
		{len(h.Links) > 0, "--link"},
		{len(h.StorageOpt) > 0, "--storage-opt"},
		{h.Isolation != "" && h.Isolation != "default", "--isolation"},
		{h.Umask != nil, "the container's umask"},
		{h.Cgroup != "", "the pod's cgroup of another container"},
		{len(r.BlkioWeightDevice) > 0, "--blkio-weight-device"},
		{len(r.BlkioDeviceReadBps) > 0, "--device-read-bps"},
		{len(r.BlkioDeviceWriteBps) > 0, "--device-write-bps"},
		{len(r.BlkioDeviceReadIOps) > 0, "--device-read-iops"},
		{len(r.BlkioDeviceWriteIOps) > 0, "--device-write-iops"},
		{len(r.DeviceRequests) > 0, "--gpus and CDI devices"},
		{h.UsernsMode != "" && h.UsernsMode != "host", "--userns " + string(h.UsernsMode)},
	} {
		if o.asked {
			return notBuilt{o.what}
		}
	}
	return nil
}
