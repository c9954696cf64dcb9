package docker

import (
	"strings"

	"github.com/moby/moby/api/types/mount"

	"cale/engine"
)

// parseBind reads Docker's short form of a mount, SOURCE:TARGET[:OPTIONS] or, of an anonymous volume, TARGET.
func parseBind(b string) (engine.Mount, error) {
	bad := func() (engine.Mount, error) { return engine.Mount{}, invalid("invalid volume specification: '%s'", b) }
	parts := strings.Split(b, ":")
	m := engine.Mount{Type: "bind", CreateSource: true, Short: b}
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
				m.RecursiveReadOnly = strings.HasPrefix(m.Source, "/")
			case "rw", "", "z", "Z", "consistent", "cached", "delegated":
			case "nocopy":
				if strings.HasPrefix(m.Source, "/") {
					return engine.Mount{}, invalid("invalid mode: %s: a bind mount copies nothing", parts[2])
				}
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
	if m.Target == "" {
		return e, badMount(&m, "field Target must not be empty")
	}
	if !strings.HasPrefix(m.Target, "/") {
		return e, invalid("invalid mount config for type %q: invalid mount path: '%s' mount path must be absolute", m.Type, m.Target)
	}
	if err := foreignOptions(&m); err != nil {
		return e, err
	}
	switch m.Type {
	case mount.TypeBind:
		if m.Source == "" {
			return e, badMount(&m, "field Source must not be empty")
		}
		if !strings.HasPrefix(m.Source, "/") {
			return e, invalid("invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be absolute", m.Source)
		}
		if o := m.BindOptions; o != nil {
			e.Propagation, e.NonRecursive, e.CreateSource = string(o.Propagation), o.NonRecursive, o.CreateMountpoint
			if err := recursion(&e, &m); err != nil {
				return e, err
			}
		} else {
			e.RecursiveReadOnly = m.ReadOnly
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
			for _, opt := range o.Options {
				if len(opt) != 1 || opt[0] != "exec" && opt[0] != "noexec" {
					return e, badMount(&m, "invalid option: "+strings.Join(opt, "="))
				}
				e.TmpfsOptions = append(e.TmpfsOptions, opt[0])
			}
			e.TmpfsSize, e.TmpfsMode = o.SizeBytes, uint32(o.Mode)
		}
	case mount.TypeImage:
		if o := m.ImageOptions; o != nil {
			e.Subpath = o.Subpath
		}
	default:
		return e, badMount(&m, "mount type unknown")
	}
	return e, nil
}

// recursion reads how far down a bind mount is read-only: all the way where nothing else is said.
func recursion(e *engine.Mount, m *mount.Mount) error {
	o := m.BindOptions
	switch {
	case o.ReadOnlyForceRecursive && o.ReadOnlyNonRecursive:
		return badMount(m, "ReadOnlyForceRecursive and ReadOnlyNonRecursive can't both be set")
	case o.ReadOnlyForceRecursive && !m.ReadOnly:
		return badMount(m, "ReadOnlyForceRecursive requires ReadOnly")
	case o.ReadOnlyForceRecursive && o.NonRecursive:
		return badMount(m, "ReadOnlyForceRecursive conflicts with NonRecursive")
	case o.ReadOnlyForceRecursive && o.Propagation != mount.PropagationRPrivate:
		return badMount(m, "ReadOnlyForceRecursive requires Propagation to be \"rprivate\"")
	}
	e.RecursiveReadOnly, e.ForceRecursive = m.ReadOnly && !o.ReadOnlyNonRecursive, o.ReadOnlyForceRecursive
	return nil
}

func badMount(m *mount.Mount, why string) error {
	return invalid("invalid mount config for type %q: %s", m.Type, why)
}

// foreignOptions refuses options that belong to another type of mount.
func foreignOptions(m *mount.Mount) error {
	for _, o := range []struct {
		set   bool
		owner mount.Type
		name  string
	}{
		{m.BindOptions != nil, mount.TypeBind, "BindOptions"}, {m.VolumeOptions != nil, mount.TypeVolume, "VolumeOptions"},
		{m.ImageOptions != nil, mount.TypeImage, "ImageOptions"}, {m.TmpfsOptions != nil, mount.TypeTmpfs, "TmpfsOptions"},
		{m.ClusterOptions != nil, mount.TypeCluster, "ClusterOptions"},
	} {
		if o.set && m.Type != o.owner {
			return badMount(m, "field "+o.name+" must not be specified")
		}
	}
	return nil
}

// forget44 makes read-only bind mounts what they were before version 1.44 of the API: what is mounted below them stays
// writable.
func forget44(mounts []engine.Mount) {
	for i := range mounts {
		mounts[i].RecursiveReadOnly = mounts[i].ForceRecursive
	}
}
