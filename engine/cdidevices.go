package engine

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	cdispecs "tags.cncf.io/container-device-interface/specs-go"

	"cale/engine/cdi"
)

// CDIDirs are the directories that descriptions of devices are looked for in.
func (e *Engine) CDIDirs() []string {
	if e.cfg.CDIDirs == nil {
		return cdi.Dirs
	}
	return e.cfg.CDIDirs
}

// CDIDevices lists the full names of all devices described.
func (e *Engine) CDIDevices() []string { return cdi.List(e.CDIDirs()) }

// giveDevices changes a container's configuration to what the devices it asks for need.
func (e *Engine) giveDevices(spec *specs.Spec, list []DeviceRequest) error {
	var names []string
	for _, r := range list {
		some, err := e.requested(&r)
		if err != nil {
			return err
		}
		names = append(names, some...)
	}
	if len(names) == 0 {
		return nil
	}
	edits, err := e.EditsOf(names)
	if err != nil {
		return fmt.Errorf("CDI device injection failed: %w", err)
	}
	edits.apply(spec)
	return nil
}

// gpuVendors are the kinds of GPUs that a driver's name stands for.
var gpuVendors = map[string]string{"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "intel": "intel.com/gpu"}

// requested gives the full names of the devices that a request means.
func (e *Engine) requested(r *DeviceRequest) ([]string, error) {
	if r.Driver == "cdi" {
		return r.IDs, nil
	}
	isGPU := slices.ContainsFunc(r.Capabilities, func(all []string) bool { return slices.Contains(all, "gpu") })
	kind, known := gpuVendors[r.Driver]
	if !isGPU || r.Driver != "" && !known {
		return nil, noDriver(r, "")
	}
	byKind := map[string][]string{}
	for _, name := range e.CDIDevices() {
		k, device, _ := strings.Cut(name, "=")
		if strings.HasSuffix(k, "/gpu") {
			byKind[k] = append(byKind[k], device)
		}
	}
	if kind == "" {
		if len(byKind) != 1 {
			return nil, noDriver(r, fmt.Sprintf(": %d vendors' GPUs are described in %s", len(byKind), strings.Join(e.CDIDirs(), ", ")))
		}
		for kind = range byKind {
		}
	}
	have, want := byKind[kind], r.IDs
	if len(want) == 0 && r.Count < 0 {
		if want = []string{"all"}; !slices.Contains(have, "all") {
			want = have
		}
	} else if len(want) == 0 {
		single := slices.DeleteFunc(slices.Clone(have), func(name string) bool { return name == "all" })
		if r.Count > len(single) {
			return nil, noDriver(r, fmt.Sprintf(": %d are asked for, %d of %s are described in %s", r.Count, len(single), kind, strings.Join(e.CDIDirs(), ", ")))
		}
		want = single[:r.Count]
	}
	if len(want) == 0 {
		return nil, noDriver(r, fmt.Sprintf(": no %s is described in %s", kind, strings.Join(e.CDIDirs(), ", ")))
	}
	var names []string
	for _, device := range want {
		names = append(names, kind+"="+device)
	}
	return names, nil
}

func noDriver(r *DeviceRequest, why string) error {
	return invalid("could not select device driver %q with capabilities: %v%s", r.Driver, r.Capabilities, why)
}

// EditsOf gives what CDI devices, by their full names, change in a container.
func (e *Engine) EditsOf(devices []string) (*Edits, error) {
	list, err := cdi.Find(e.CDIDirs(), devices)
	if err != nil {
		return nil, invalid("%v", err)
	}
	out := new(Edits)
	for _, c := range list {
		edits, err := cdiEdits(c)
		if err != nil {
			return nil, err
		}
		out.Add(edits)
	}
	return out, nil
}

func cdiEdits(c *cdispecs.ContainerEdits) (*Edits, error) {
	out := &Edits{Env: c.Env, Groups: c.AdditionalGIDs}
	for _, d := range c.DeviceNodes {
		node, rule, err := cdiNode(d)
		if err != nil {
			return nil, err
		}
		out.Devices, out.Access = append(out.Devices, node), append(out.Access, rule)
	}
	for _, m := range c.Mounts {
		kind := m.Type
		options := m.Options
		if kind == "" {
			kind = "bind"
		}
		if kind == "bind" {
			options = append([]string{"rbind"}, options...)
		}
		out.Mounts = append(out.Mounts, specs.Mount{Source: m.HostPath, Destination: m.ContainerPath, Type: kind, Options: options})
	}
	for _, n := range c.NetDevices {
		mergeInto(&out.NetDevices, map[string]specs.LinuxNetDevice{n.HostInterfaceName: {Name: n.Name}})
	}
	for _, h := range c.Hooks {
		hook := specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout}
		list, ok := map[string]*[]specs.Hook{
			"prestart": &out.Hooks.Prestart, "createRuntime": &out.Hooks.CreateRuntime, "createContainer": &out.Hooks.CreateContainer, //nolint:staticcheck // CDI has prestart
			"startContainer": &out.Hooks.StartContainer, "poststart": &out.Hooks.Poststart, "poststop": &out.Hooks.Poststop,
		}[h.HookName]
		if !ok {
			return nil, invalid("CDI: there is no hook %q", h.HookName)
		}
		*list = append(*list, hook)
	}
	if c.IntelRdt != nil {
		return nil, fail(ErrUnsupported, "CDI: devices with intelRdt are not built yet")
	}
	return out, nil
}

// cdiNode completes a device node with what the host's node is.
func cdiNode(d *cdispecs.DeviceNode) (node specs.LinuxDevice, rule specs.LinuxDeviceCgroup, err error) {
	host := d.HostPath
	if host == "" {
		host = d.Path
	}
	node = specs.LinuxDevice{Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor, FileMode: d.FileMode, UID: d.UID, GID: d.GID}
	if node.Type == "" || node.Major == 0 && node.Type != "p" {
		var st unix.Stat_t
		if err := unix.Stat(host, &st); err != nil {
			return node, rule, invalid("CDI: device node %s: %v", host, err)
		}
		kind, ok := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b", unix.S_IFIFO: "p"}[st.Mode&unix.S_IFMT]
		if !ok || node.Type != "" && node.Type != kind {
			return node, rule, invalid("CDI: %s is no device node of type %q", host, node.Type)
		}
		node.Type, node.Major, node.Minor = kind, int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	access := d.Permissions
	if access == "" {
		access = "rwm"
	}
	rule = specs.LinuxDeviceCgroup{Allow: true, Type: node.Type, Major: &node.Major, Minor: &node.Minor, Access: access}
	if node.Path == "" {
		err = fmt.Errorf("CDI: a device node without a path")
	}
	return node, rule, err
}
