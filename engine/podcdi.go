package engine

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	cdispecs "tags.cncf.io/container-device-interface/specs-go"

	"cale/engine/cdi"
)

// EditsOf gives what CDI devices, by their full names, change in a container.
func (e *Engine) EditsOf(devices []string) (*Edits, error) {
	dirs := e.cfg.CDIDirs
	if dirs == nil {
		dirs = cdi.Dirs
	}
	list, err := cdi.Find(dirs, devices)
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
