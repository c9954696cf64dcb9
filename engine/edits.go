package engine

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Edits change a container's OCI configuration as trusted programs of the node ask for it: CDI's descriptions of
// devices, NRI's plug-ins. Nothing of an image can get here.
type Edits struct {
	Env         []string // NAME=value; NAME alone takes one away
	Mounts      []specs.Mount
	Unmounted   []string // destinations that are taken away
	Devices     []specs.LinuxDevice
	Access      []specs.LinuxDeviceCgroup
	Hooks       specs.Hooks
	Rlimits     []specs.POSIXRlimit
	Groups      []uint32
	Annotations map[string]string
	Sysctls     map[string]string
	NetDevices  map[string]specs.LinuxNetDevice
	OOMScore    *int
	// RemovedDevices are paths of devices, RemovedSysctls names, that are taken away.
	RemovedDevices, RemovedSysctls []string
	// These take the place of what there is, where they are set.
	IOPriority   *specs.LinuxIOPriority
	Scheduler    *specs.Scheduler
	MemoryPolicy *specs.LinuxMemoryPolicy
	Seccomp      *specs.LinuxSeccomp
}

// Add joins two; what is in other wins.
func (e *Edits) Add(other *Edits) {
	e.Env = append(e.Env, other.Env...)
	e.Mounts = append(e.Mounts, other.Mounts...)
	e.Unmounted = append(e.Unmounted, other.Unmounted...)
	e.Devices = append(e.Devices, other.Devices...)
	e.Access = append(e.Access, other.Access...)
	e.Hooks.Prestart = append(e.Hooks.Prestart, other.Hooks.Prestart...) //nolint:staticcheck // deprecated, and in use
	e.Hooks.CreateRuntime = append(e.Hooks.CreateRuntime, other.Hooks.CreateRuntime...)
	e.Hooks.CreateContainer = append(e.Hooks.CreateContainer, other.Hooks.CreateContainer...)
	e.Hooks.StartContainer = append(e.Hooks.StartContainer, other.Hooks.StartContainer...)
	e.Hooks.Poststart = append(e.Hooks.Poststart, other.Hooks.Poststart...)
	e.Hooks.Poststop = append(e.Hooks.Poststop, other.Hooks.Poststop...)
	e.Rlimits = append(e.Rlimits, other.Rlimits...)
	e.Groups = append(e.Groups, other.Groups...)
	mergeInto(&e.Annotations, other.Annotations)
	mergeInto(&e.Sysctls, other.Sysctls)
	mergeInto(&e.NetDevices, other.NetDevices)
	e.RemovedDevices = append(e.RemovedDevices, other.RemovedDevices...)
	e.RemovedSysctls = append(e.RemovedSysctls, other.RemovedSysctls...)
	replace(&e.OOMScore, other.OOMScore)
	replace(&e.IOPriority, other.IOPriority)
	replace(&e.Scheduler, other.Scheduler)
	replace(&e.MemoryPolicy, other.MemoryPolicy)
	replace(&e.Seccomp, other.Seccomp)
}

func replace[V any](to **V, with *V) {
	if with != nil {
		*to = with
	}
}

func mergeInto[V any](to *map[string]V, from map[string]V) {
	for k, v := range from {
		if *to == nil {
			*to = map[string]V{}
		}
		(*to)[k] = v
	}
}

// apply carries them out on a configuration.
func (e *Edits) apply(spec *specs.Spec) {
	p := spec.Process
	p.Env = mergeEnv(p.Env, e.Env)
	gone := e.Unmounted
	for _, m := range e.Mounts {
		gone = append(gone, m.Destination)
	}
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return slices.Contains(gone, m.Destination) })
	spec.Mounts = append(spec.Mounts, e.Mounts...)
	spec.Linux.Devices = slices.DeleteFunc(spec.Linux.Devices, func(have specs.LinuxDevice) bool { return slices.Contains(e.RemovedDevices, have.Path) })
	for _, d := range e.Devices {
		spec.Linux.Devices = slices.DeleteFunc(spec.Linux.Devices, func(have specs.LinuxDevice) bool { return have.Path == d.Path })
	}
	spec.Linux.Devices = append(spec.Linux.Devices, e.Devices...)
	spec.Linux.Resources.Devices = append(spec.Linux.Resources.Devices, e.Access...)
	if h := &e.Hooks; len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer)+len(h.Poststart)+len(h.Poststop) > 0 { //nolint:staticcheck // as above
		spec.Hooks = h
	}
	for _, r := range e.Rlimits {
		p.Rlimits = append(slices.DeleteFunc(p.Rlimits, func(have specs.POSIXRlimit) bool { return have.Type == r.Type }), r)
	}
	for _, g := range e.Groups {
		if !slices.Contains(p.User.AdditionalGids, g) {
			p.User.AdditionalGids = append(p.User.AdditionalGids, g)
		}
	}
	mergeInto(&spec.Annotations, e.Annotations)
	for _, name := range e.RemovedSysctls {
		delete(spec.Linux.Sysctl, name)
	}
	mergeInto(&spec.Linux.Sysctl, e.Sysctls)
	mergeInto(&spec.Linux.NetDevices, e.NetDevices)
	replace(&p.OOMScoreAdj, e.OOMScore)
	replace(&p.IOPriority, e.IOPriority)
	replace(&p.Scheduler, e.Scheduler)
	replace(&spec.Linux.MemoryPolicy, e.MemoryPolicy)
	replace(&spec.Linux.Seccomp, e.Seccomp)
}
