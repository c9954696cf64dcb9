package spec

import (
	"encoding/json"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The types below are the specification's with the rare parts left as text. For each struct it meets, package json
// prepares all that the struct could hold, and for specs.Spec (with Windows, Solaris, virtual machines) that takes
// more time than the start of a container may. What a configuration doesn't use is never looked at this way.
type wireSpec struct {
	Version     string            `json:"ociVersion"`
	Process     *wireProcess      `json:"process"`
	Root        *specs.Root       `json:"root"`
	Hostname    string            `json:"hostname"`
	Domainname  string            `json:"domainname"`
	Mounts      []specs.Mount     `json:"mounts"`
	Hooks       json.RawMessage   `json:"hooks"`
	Annotations map[string]string `json:"annotations"`
	Linux       *wireLinux        `json:"linux"`
}

type wireProcess struct {
	Terminal        bool                     `json:"terminal"`
	ConsoleSize     *specs.Box               `json:"consoleSize"`
	User            specs.User               `json:"user"`
	Args            []string                 `json:"args"`
	Env             []string                 `json:"env"`
	Cwd             string                   `json:"cwd"`
	Capabilities    *specs.LinuxCapabilities `json:"capabilities"`
	Rlimits         []specs.POSIXRlimit      `json:"rlimits"`
	NoNewPrivileges bool                     `json:"noNewPrivileges"`
	ApparmorProfile string                   `json:"apparmorProfile"`
	OOMScoreAdj     *int                     `json:"oomScoreAdj"`
	Scheduler       json.RawMessage          `json:"scheduler"`
	SelinuxLabel    string                   `json:"selinuxLabel"`
	IOPriority      json.RawMessage          `json:"ioPriority"`
	ExecCPUAffinity json.RawMessage          `json:"execCPUAffinity"`
}

type wireLinux struct {
	UIDMappings       []specs.LinuxIDMapping `json:"uidMappings"`
	GIDMappings       []specs.LinuxIDMapping `json:"gidMappings"`
	Sysctl            map[string]string      `json:"sysctl"`
	Resources         *wireResources         `json:"resources"`
	CgroupsPath       string                 `json:"cgroupsPath"`
	Namespaces        []specs.LinuxNamespace `json:"namespaces"`
	Devices           json.RawMessage        `json:"devices"`
	NetDevices        json.RawMessage        `json:"netDevices"`
	Seccomp           json.RawMessage        `json:"seccomp"`
	RootfsPropagation string                 `json:"rootfsPropagation"`
	MaskedPaths       []string               `json:"maskedPaths"`
	ReadonlyPaths     []string               `json:"readonlyPaths"`
	MountLabel        string                 `json:"mountLabel"`
	IntelRdt          json.RawMessage        `json:"intelRdt"`
	MemoryPolicy      json.RawMessage        `json:"memoryPolicy"`
	Personality       json.RawMessage        `json:"personality"`
	TimeOffsets       json.RawMessage        `json:"timeOffsets"`
}

type wireResources struct {
	Unified        map[string]string          `json:"unified"`
	Devices        []specs.LinuxDeviceCgroup  `json:"devices"`
	Memory         *specs.LinuxMemory         `json:"memory"`
	CPU            *specs.LinuxCPU            `json:"cpu"`
	Pids           *specs.LinuxPids           `json:"pids"`
	BlockIO        json.RawMessage            `json:"blockIO"`
	HugepageLimits []specs.LinuxHugepageLimit `json:"hugepageLimits"`
	Network        json.RawMessage            `json:"network"`
	Rdma           json.RawMessage            `json:"rdma"`
}

// Parse reads a configuration. What it says of other systems is left out.
func Parse(raw []byte) (*specs.Spec, error) {
	var w wireSpec
	if err := json.Unmarshal(raw, &w); err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version: w.Version, Root: w.Root, Hostname: w.Hostname, Domainname: w.Domainname, Mounts: w.Mounts,
		Annotations: w.Annotations,
	}
	var d rare
	d.into(w.Hooks, &s.Hooks)
	if w.Process != nil {
		s.Process = w.Process.spec(&d)
	}
	if w.Linux != nil {
		s.Linux = w.Linux.spec(&d)
	}
	return s, d.err
}

// ParseProcess reads a process.
func ParseProcess(raw []byte) (*specs.Process, error) {
	var w wireProcess
	if err := json.Unmarshal(raw, &w); err != nil {
		return nil, err
	}
	var d rare
	return w.spec(&d), d.err
}

// rare decodes what was left as text, up to the first error.
type rare struct{ err error }

func (d *rare) into(raw json.RawMessage, v any) {
	if d.err == nil && len(raw) > 0 {
		d.err = json.Unmarshal(raw, v)
	}
}

func (w *wireProcess) spec(d *rare) *specs.Process {
	p := &specs.Process{
		Terminal: w.Terminal, ConsoleSize: w.ConsoleSize, User: w.User, Args: w.Args, Env: w.Env, Cwd: w.Cwd,
		Capabilities: w.Capabilities, Rlimits: w.Rlimits, NoNewPrivileges: w.NoNewPrivileges,
		ApparmorProfile: w.ApparmorProfile, OOMScoreAdj: w.OOMScoreAdj, SelinuxLabel: w.SelinuxLabel,
	}
	d.into(w.Scheduler, &p.Scheduler)
	d.into(w.IOPriority, &p.IOPriority)
	d.into(w.ExecCPUAffinity, &p.ExecCPUAffinity)
	return p
}

func (w *wireLinux) spec(d *rare) *specs.Linux {
	l := &specs.Linux{
		UIDMappings: w.UIDMappings, GIDMappings: w.GIDMappings, Sysctl: w.Sysctl, CgroupsPath: w.CgroupsPath,
		Namespaces: w.Namespaces, RootfsPropagation: w.RootfsPropagation, MaskedPaths: w.MaskedPaths,
		ReadonlyPaths: w.ReadonlyPaths, MountLabel: w.MountLabel,
	}
	d.into(w.Devices, &l.Devices)
	d.into(w.NetDevices, &l.NetDevices)
	d.into(w.Seccomp, &l.Seccomp)
	d.into(w.IntelRdt, &l.IntelRdt)
	d.into(w.MemoryPolicy, &l.MemoryPolicy)
	d.into(w.Personality, &l.Personality)
	d.into(w.TimeOffsets, &l.TimeOffsets)
	if r := w.Resources; r != nil {
		l.Resources = &specs.LinuxResources{Unified: r.Unified, Devices: r.Devices, Memory: r.Memory, CPU: r.CPU, Pids: r.Pids,
			HugepageLimits: r.HugepageLimits}
		d.into(r.BlockIO, &l.Resources.BlockIO)
		d.into(r.Network, &l.Resources.Network)
		d.into(r.Rdma, &l.Resources.Rdma)
	}
	return l
}
