package nri

import (
	"errors"
	"strings"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"cale/engine"
)

// adjust changes what was asked of a container as plug-ins want it. What can't be done is an error: a container
// without it would not be what its node's administrator wants.
func (p *plugins) adjust(s *engine.Spec, a *api.ContainerAdjustment) error {
	if a == nil {
		return nil
	}
	e := new(engine.Edits)
	if s.Member.Edits != nil {
		e.Add(s.Member.Edits)
	}
	var devices []string
	for _, d := range a.CDIDevices {
		devices = append(devices, d.Name)
	}
	if len(devices) > 0 {
		edits, err := p.node.Edits(devices)
		if err != nil {
			return err
		}
		e.Add(edits)
	}
	for _, v := range a.Env {
		if name, gone := api.IsMarkedForRemoval(v.Key); gone {
			e.Env = append(e.Env, name)
		} else {
			e.Env = append(e.Env, v.Key+"="+v.Value)
		}
	}
	for k, v := range a.Annotations {
		if name, gone := api.IsMarkedForRemoval(k); gone {
			delete(s.Annotations, name)
		} else {
			e.Add(&engine.Edits{Annotations: map[string]string{k: v}})
		}
	}
	for _, m := range a.Mounts {
		if dest, gone := api.IsMarkedForRemoval(m.Destination); gone {
			e.Unmounted = append(e.Unmounted, dest)
		} else {
			e.Mounts = append(e.Mounts, specs.Mount{Destination: m.Destination, Type: m.Type, Source: m.Source, Options: m.Options})
		}
	}
	if h := a.Hooks; h != nil {
		e.Add(&engine.Edits{Hooks: specs.Hooks{Prestart: hooks(h.Prestart), CreateRuntime: hooks(h.CreateRuntime), CreateContainer: hooks(h.CreateContainer), //nolint:staticcheck // deprecated, and in use
			StartContainer: hooks(h.StartContainer), Poststart: hooks(h.Poststart), Poststop: hooks(h.Poststop)}})
	}
	for _, r := range a.Rlimits {
		e.Rlimits = append(e.Rlimits, specs.POSIXRlimit{Type: r.Type, Soft: r.Soft, Hard: r.Hard})
	}
	if len(a.Args) > 0 {
		args := a.Args
		if args[0] == "" { // marks that they replace what others set
			args = args[1:]
		}
		s.Entrypoint, s.Cmd = args, nil
	}
	if l := a.Linux; l != nil {
		if err := adjustLinux(s, e, l); err != nil {
			return err
		}
	}
	s.Member.Edits = e
	return nil
}

func hooks(list []*api.Hook) (out []specs.Hook) {
	for _, h := range list {
		out = append(out, h.ToOCI())
	}
	return out
}

func adjustLinux(s *engine.Spec, e *engine.Edits, l *api.LinuxContainerAdjustment) error {
	switch {
	case len(l.Namespaces) > 0:
		return unsupported("namespaces")
	case l.Rdt != nil:
		return unsupported("an RDT class")
	case l.CgroupsPath != "":
		return unsupported("another cgroup")
	}
	for _, d := range l.Devices {
		if path, gone := api.IsMarkedForRemoval(d.Path); gone {
			e.RemovedDevices = append(e.RemovedDevices, path)
			continue
		}
		node := d.ToOCI()
		e.Devices = append(e.Devices, node)
		e.Access = append(e.Access, specs.LinuxDeviceCgroup{Allow: true, Type: node.Type, Major: &node.Major, Minor: &node.Minor, Access: "rwm"})
	}
	if v := l.OomScoreAdj; v != nil {
		score := int(v.Value)
		e.OOMScore = &score
	}
	for k, v := range l.Sysctl {
		if name, gone := api.IsMarkedForRemoval(k); gone {
			e.RemovedSysctls = append(e.RemovedSysctls, name)
			continue
		}
		e.Add(&engine.Edits{Sysctls: map[string]string{k: v}})
	}
	if len(l.NetDevices) > 0 {
		e.Add(&engine.Edits{NetDevices: api.ToOCILinuxNetDevices(l.NetDevices)})
	}
	e.Add(&engine.Edits{IOPriority: l.IoPriority.ToOCI(), Scheduler: l.Scheduler.ToOCI(), MemoryPolicy: l.MemoryPolicy.ToOCI(), Seccomp: seccomp(l.SeccompPolicy)})
	r := l.Resources
	if r == nil {
		return nil
	}
	for _, h := range r.HugepageLimits {
		if s.Member.HugepageLimits == nil {
			s.Member.HugepageLimits = map[string]uint64{}
		}
		s.Member.HugepageLimits[h.PageSize] = h.Limit
	}
	for k, v := range r.Unified {
		if s.Member.Unified == nil {
			s.Member.Unified = map[string]string{}
		}
		s.Member.Unified[k] = v
	}
	rest := proto.CloneOf(r) // without what has just been taken care of
	rest.HugepageLimits, rest.Unified = nil, nil
	return setResources(&s.Resources, rest)
}

func seccomp(p *api.LinuxSeccomp) *specs.LinuxSeccomp {
	if p == nil {
		return nil
	}
	out := &specs.LinuxSeccomp{DefaultAction: specs.LinuxSeccompAction(p.DefaultAction), ListenerPath: p.ListenerPath, ListenerMetadata: p.ListenerMetadata,
		Syscalls: api.ToOCILinuxSyscalls(p.Syscalls)}
	if p.DefaultErrno != nil {
		n := uint(p.DefaultErrno.Value)
		out.DefaultErrnoRet = &n
	}
	for _, a := range p.Architectures {
		out.Architectures = append(out.Architectures, specs.Arch(a))
	}
	for _, f := range p.Flags {
		out.Flags = append(out.Flags, specs.LinuxSeccompFlag(f))
	}
	return out
}

func unsupported(what string) error {
	return &engine.Error{Class: engine.ErrUnsupported, Text: "NRI: a plug-in wants " + what + " for the container: that is not built yet"}
}

// setResources changes limits; what a plug-in does not name stays.
func setResources(to *engine.Resources, r *api.LinuxResources) error {
	if r == nil {
		return nil
	}
	var refused []string
	for what, has := range map[string]bool{"block I/O classes": r.BlockioClass != nil, "RDT classes": r.RdtClass != nil, "huge page limits": len(r.HugepageLimits) > 0,
		"unified settings": len(r.Unified) > 0, "device rules": len(r.Devices) > 0} {
		if has {
			refused = append(refused, what)
		}
	}
	if len(refused) > 0 {
		return &engine.Error{Class: engine.ErrUnsupported, Text: "NRI: a plug-in changes " + strings.Join(refused, ", ") + ": that is not built yet"}
	}
	if m := r.Memory; m != nil {
		setInt(&to.Memory, m.Limit)
		setInt(&to.MemoryReservation, m.Reservation)
		setInt(&to.MemorySwap, m.Swap)
		if m.Kernel != nil || m.KernelTcp != nil {
			return errors.New("NRI: limits of kernel memory are gone from the kernel")
		}
	}
	if c := r.Cpu; c != nil {
		setInt(&to.CPUQuota, c.Quota)
		setUint(&to.CPUPeriod, c.Period)
		setUint(&to.CPUShares, c.Shares)
		if c.Cpus != "" {
			to.CpusetCPUs = c.Cpus
		}
		if c.Mems != "" {
			to.CpusetMems = c.Mems
		}
	}
	if r.Pids != nil {
		limit := r.Pids.Limit
		to.Pids = &limit
	}
	return nil
}

func setInt(to *int64, v *api.OptionalInt64) {
	if v != nil {
		*to = v.Value
	}
}

func setUint(to *int64, v *api.OptionalUInt64) {
	if v != nil {
		*to = int64(v.Value)
	}
}
