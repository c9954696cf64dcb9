package rootfs

import (
	"path"
)

// External is a mount of a container whose content lies outside it: CRIU is told what it is, on both sides.
type External struct {
	Dest   string // as the configuration has it; links are not followed
	Source string // on the host
}

// Externals lists what a container of these options has bound from outside. It opens nothing.
func Externals(o Options) ([]External, error) {
	t := &Tree{o: o}
	var list []External
	for _, m := range o.Spec.Mounts {
		opts, err := parseOptions(m.Options)
		if err != nil {
			return nil, err
		}
		dest := clean(m.Destination)
		if rest, ok := t.inRoot(m.Destination); ok {
			dest = rest
		}
		switch {
		case opts.remount:
		case opts.bind || m.Type == "bind" || m.Type == "rbind":
			list = append(list, External{"/" + dest, t.abs(m.Source)})
		case m.Type == "cgroup" || m.Type == "cgroup2":
			if v2, ok := o.CgroupDirs[""]; ok && len(o.CgroupDirs) == 1 {
				list = append(list, External{"/" + dest, v2})
				continue
			}
			seen := map[string]bool{}
			for _, dir := range o.CgroupDirs {
				if !seen[dir] {
					seen[dir] = true
					list = append(list, External{"/" + path.Join(dest, hierarchyName(dir)), dir})
				}
			}
		}
	}
	if !o.NewUser && !o.Unprivileged {
		return list, nil
	}
	// Devices are bound there.
	if l := o.Spec.Linux; l != nil {
		for _, d := range l.Devices {
			list = append(list, External{"/" + clean(d.Path), "/" + clean(d.Path)})
		}
	}
	for _, n := range defaultDevices {
		list = append(list, External{"/" + n.path, "/" + n.path})
	}
	return list, nil
}

// Resolved is where a destination leads by the links of the root as it is before anything is mounted.
func (t *Tree) Resolved(dest string) string { return "/" + t.withoutLinks(clean(dest)) }
