package docker

import (
	"bytes"
	"encoding/json"
	"path"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
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

// healthOnFailure is the annotation by which clients of Docker's API, which has no field for it, say what happens to an
// unhealthy container.
const healthOnFailure = "cale.health-on-failure"

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
		OOMScore: h.OomScoreAdj, Annotations: h.Annotations, Umask: h.Umask,
		PidMode: string(h.PidMode), IpcMode: string(h.IpcMode), UTSMode: string(h.UTSMode),
		CgroupnsMode: string(h.CgroupnsMode), UsernsMode: string(h.UsernsMode),
		StorageOpt: h.StorageOpt, VolumesFrom: h.VolumesFrom, CgroupParent: h.CgroupParent,
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
	if action := h.Annotations[healthOnFailure]; action != "none" {
		s.OnUnhealthy = action
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
	var err error
	if n.Links, err = toLinks(h.Links); err != nil {
		return n, err
	}
	for _, a := range h.DNS {
		n.DNS = append(n.DNS, a.String())
	}
	if n.Publish, err = toPublish(h.PortBindings); err != nil {
		return n, err
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
		e, err := toEndpoint(name, ep)
		if err != nil {
			return n, err
		}
		if name == n.Mode || name == "bridge" && (n.Mode == "default" || n.Mode == "") {
			n.Aliases, n.IPv4, n.IPv6, n.GwPriority, n.Interface = e.Aliases, e.IPv4, e.IPv6, e.GwPriority, e.Interface
			if e.MAC != "" {
				n.MAC = e.MAC
			}
			if len(e.Links) > 0 {
				n.Links = e.Links
			}
			continue
		}
		n.Others = append(n.Others, e)
	}
	return n, nil
}

// toEndpoint reads what a client wants of a place on a network.
func toEndpoint(name string, ep *network.EndpointSettings) (engine.NetworkEndpoint, error) {
	e := engine.NetworkEndpoint{Network: name}
	if ep == nil {
		return e, nil
	}
	e.Aliases, e.GwPriority = ep.Aliases, ep.GwPriority
	if c := ep.IPAMConfig; c != nil {
		e.IPv4, e.IPv6 = c.IPv4Address, c.IPv6Address
		if len(c.LinkLocalIPs) > 0 {
			return e, notBuilt{"--link-local-ip"}
		}
	}
	if len(ep.MacAddress) > 0 {
		e.MAC = ep.MacAddress.String()
	}
	var err error
	if e.Links, err = toLinks(ep.Links); err != nil {
		return e, err
	}
	for key, value := range ep.DriverOpts {
		switch key {
		case "com.docker.network.endpoint.ifname":
			e.Interface = value
		default:
			return e, notBuilt{"the network option " + key}
		}
	}
	return e, nil
}

// toPublish lists the ports to publish, in order.
func toPublish(m network.PortMap) (list []engine.Publish, err error) {
	ports := make([]network.Port, 0, len(m))
	for p := range m {
		ports = append(ports, p)
	}
	sort.Slice(ports, func(i, j int) bool { return ports[i].String() < ports[j].String() })
	for _, p := range ports {
		bindings := m[p]
		if len(bindings) == 0 {
			bindings = []network.PortBinding{{}}
		}
		for _, b := range bindings {
			pub := engine.Publish{Port: enginePort(p), HostIP: b.HostIP}
			lo, hi, isRange := strings.Cut(b.HostPort, "-")
			if lo != "" {
				if pub.HostPort, err = parsePort(lo); err != nil {
					return nil, err
				}
			}
			if isRange {
				if pub.HostPortEnd, err = parsePort(hi); err != nil {
					return nil, err
				}
				if pub.HostPortEnd < pub.HostPort {
					return nil, invalid("invalid port range: %s", b.HostPort)
				}
			}
			list = append(list, pub)
		}
	}
	return list, nil
}

// toLinks reads links as clients write them: container, container:alias, or as an old inspect showed them,
// /container:/self/alias.
func toLinks(links []string) ([]string, error) {
	var out []string
	for _, l := range links {
		name, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = name
		}
		name, alias = strings.TrimPrefix(name, "/"), path.Base(alias)
		if name == "" || alias == "" || strings.ContainsAny(alias, ": \n\t") {
			return nil, invalid("bad format for links: %s", l)
		}
		out = append(out, name+":"+alias)
	}
	return out, nil
}

func parsePort(s string) (uint16, error) {
	p, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, invalid("invalid port specification: %q", s)
	}
	return uint16(p), nil
}

func enginePort(p network.Port) engine.Port {
	return engine.Port{Number: p.Num(), Protocol: string(p.Proto())}
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
	for _, w := range r.BlkioWeightDevice {
		if w != nil {
			e.BlkioWeightDevice = append(e.BlkioWeightDevice, engine.DeviceRate{Path: w.Path, Rate: uint64(w.Weight)})
		}
	}
	e.BlkioReadBps, e.BlkioWriteBps = deviceRates(r.BlkioDeviceReadBps), deviceRates(r.BlkioDeviceWriteBps)
	e.BlkioReadIOps, e.BlkioWriteIOps = deviceRates(r.BlkioDeviceReadIOps), deviceRates(r.BlkioDeviceWriteIOps)
	for _, d := range r.Devices {
		e.Devices = append(e.Devices, engine.Device{Host: d.PathOnHost, Container: d.PathInContainer, Permissions: d.CgroupPermissions})
	}
	for _, d := range r.DeviceRequests {
		e.DeviceRequests = append(e.DeviceRequests, engine.DeviceRequest{Driver: d.Driver, Count: d.Count, IDs: d.DeviceIDs,
			Capabilities: d.Capabilities, Options: d.Options})
	}
	return e, nil
}

// deviceRates keeps nil apart from empty: an update leaves the one as it is, and clears by the other.
func deviceRates(list []*blkiodev.ThrottleDevice) []engine.DeviceRate {
	if list == nil {
		return nil
	}
	out := []engine.DeviceRate{}
	for _, d := range list {
		if d != nil {
			out = append(out, engine.DeviceRate{Path: d.Path, Rate: d.Rate})
		}
	}
	return out
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
		if !ok && key != "no-new-privileges" && key != "writable-cgroups" && key != "disable" {
			return s, invalid("invalid --security-opt 1: %q", o)
		}
		switch key {
		case "no-new-privileges":
			on, err := securityFlag(value)
			if err != nil {
				return s, invalid("invalid --security-opt 2: %q", o)
			}
			s.NoNewPrivs = on
		case "writable-cgroups":
			on, err := securityFlag(value)
			if err != nil {
				return s, invalid("invalid --security-opt 2: %q", o)
			}
			s.WritableCgroups = on
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
				return s, invalid("invalid --security-opt 2: %q", o)
			}
			s.SystemPaths = value
		default:
			return s, invalid("invalid --security-opt 2: %q", o)
		}
	}
	return s, nil
}

// securityFlag reads the value of an option that is on or off; named alone it is on.
func securityFlag(value string) (bool, error) {
	switch value {
	case "", "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, strconv.ErrSyntax
}

// refuse answers for options that clients may send and the engine can't honour.
func refuse(c *container.Config, h *container.HostConfig) error {
	for _, o := range []struct {
		asked bool
		what  string
	}{
		{h.Isolation != "" && h.Isolation != "default", "--isolation"},
		{h.Cgroup != "", "the pod's cgroup of another container"},
	} {
		if o.asked {
			return notBuilt{o.what}
		}
	}
	return nil
}
