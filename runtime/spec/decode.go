package spec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Parse reads a configuration. What it says of other systems is left out. The strings in it are parts of raw, which
// must not be changed any more.
func Parse(raw []byte) (*specs.Spec, error) {
	r := newReader(raw)
	s := &specs.Spec{}
	r.object(func(key string) {
		switch key {
		case "ociVersion":
			s.Version = r.str()
		case "process":
			s.Process = pointer(r, r.process)
		case "root":
			s.Root = pointer(r, func() (o specs.Root) {
				r.object(func(key string) {
					switch key {
					case "path":
						o.Path = r.str()
					case "readonly":
						o.Readonly = r.boolean()
					default:
						r.skip()
					}
				})
				return o
			})
		case "hostname":
			s.Hostname = r.str()
		case "domainname":
			s.Domainname = r.str()
		case "mounts":
			s.Mounts = list(r, r.mount)
		case "hooks":
			r.rare(&s.Hooks)
		case "annotations":
			s.Annotations = r.stringMap()
		case "linux":
			s.Linux = pointer(r, r.linux)
		default:
			r.skip()
		}
	})
	return s, r.end()
}

// ParseProcess reads a process, as Parse does.
func ParseProcess(raw []byte) (*specs.Process, error) {
	r := newReader(raw)
	p := r.process()
	return &p, r.end()
}

func (r *reader) process() (p specs.Process) {
	r.object(func(key string) {
		switch key {
		case "terminal":
			p.Terminal = r.boolean()
		case "consoleSize":
			r.rare(&p.ConsoleSize)
		case "user":
			p.User = r.user()
		case "args":
			p.Args = r.strs()
		case "env":
			p.Env = r.strs()
		case "cwd":
			p.Cwd = r.str()
		case "capabilities":
			p.Capabilities = pointer(r, r.capabilities)
		case "rlimits":
			p.Rlimits = list(r, r.rlimit)
		case "noNewPrivileges":
			p.NoNewPrivileges = r.boolean()
		case "apparmorProfile":
			p.ApparmorProfile = r.str()
		case "oomScoreAdj":
			p.OOMScoreAdj = pointer(r, func() int { return int(r.int(64)) })
		case "scheduler":
			r.rare(&p.Scheduler)
		case "selinuxLabel":
			p.SelinuxLabel = r.str()
		case "ioPriority":
			r.rare(&p.IOPriority)
		case "execCPUAffinity":
			r.rare(&p.ExecCPUAffinity)
		default:
			r.skip()
		}
	})
	return p
}

func (r *reader) user() (u specs.User) {
	r.object(func(key string) {
		switch key {
		case "uid":
			u.UID = r.uint32()
		case "gid":
			u.GID = r.uint32()
		case "umask":
			u.Umask = pointer(r, r.uint32)
		case "additionalGids":
			u.AdditionalGids = list(r, r.uint32)
		default:
			r.skip()
		}
	})
	return u
}

func (r *reader) capabilities() (c specs.LinuxCapabilities) {
	r.object(func(key string) {
		switch key {
		case "bounding":
			c.Bounding = r.strs()
		case "effective":
			c.Effective = r.strs()
		case "inheritable":
			c.Inheritable = r.strs()
		case "permitted":
			c.Permitted = r.strs()
		case "ambient":
			c.Ambient = r.strs()
		default:
			r.skip()
		}
	})
	return c
}

func (r *reader) rlimit() (l specs.POSIXRlimit) {
	r.object(func(key string) {
		switch key {
		case "type":
			l.Type = r.str()
		case "hard":
			l.Hard = r.uint(64)
		case "soft":
			l.Soft = r.uint(64)
		default:
			r.skip()
		}
	})
	return l
}

func (r *reader) mount() (m specs.Mount) {
	r.object(func(key string) {
		switch key {
		case "destination":
			m.Destination = r.str()
		case "type":
			m.Type = r.str()
		case "source":
			m.Source = r.str()
		case "options":
			m.Options = r.strs()
		case "uidMappings":
			m.UIDMappings = list(r, r.mapping)
		case "gidMappings":
			m.GIDMappings = list(r, r.mapping)
		default:
			r.skip()
		}
	})
	return m
}

func (r *reader) mapping() (m specs.LinuxIDMapping) {
	r.object(func(key string) {
		switch key {
		case "containerID":
			m.ContainerID = r.uint32()
		case "hostID":
			m.HostID = r.uint32()
		case "size":
			m.Size = r.uint32()
		default:
			r.skip()
		}
	})
	return m
}

func (r *reader) linux() (l specs.Linux) {
	r.object(func(key string) {
		switch key {
		case "uidMappings":
			l.UIDMappings = list(r, r.mapping)
		case "gidMappings":
			l.GIDMappings = list(r, r.mapping)
		case "sysctl":
			l.Sysctl = r.stringMap()
		case "resources":
			l.Resources = pointer(r, r.resources)
		case "cgroupsPath":
			l.CgroupsPath = r.str()
		case "namespaces":
			l.Namespaces = list(r, r.namespace)
		case "devices":
			r.rare(&l.Devices)
		case "netDevices":
			r.rare(&l.NetDevices)
		case "seccomp":
			l.Seccomp = pointer(r, r.seccomp)
		case "rootfsPropagation":
			l.RootfsPropagation = r.str()
		case "maskedPaths":
			l.MaskedPaths = r.strs()
		case "readonlyPaths":
			l.ReadonlyPaths = r.strs()
		case "mountLabel":
			l.MountLabel = r.str()
		case "intelRdt":
			r.rare(&l.IntelRdt)
		case "memoryPolicy":
			r.rare(&l.MemoryPolicy)
		case "personality":
			r.rare(&l.Personality)
		case "timeOffsets":
			r.rare(&l.TimeOffsets)
		default:
			r.skip()
		}
	})
	return l
}

func (r *reader) namespace() (n specs.LinuxNamespace) {
	r.object(func(key string) {
		switch key {
		case "type":
			n.Type = specs.LinuxNamespaceType(r.str())
		case "path":
			n.Path = r.str()
		default:
			r.skip()
		}
	})
	return n
}

func (r *reader) resources() (res specs.LinuxResources) {
	r.object(func(key string) {
		switch key {
		case "unified":
			res.Unified = r.stringMap()
		case "devices":
			res.Devices = list(r, r.deviceRule)
		case "memory":
			res.Memory = pointer(r, r.memory)
		case "cpu":
			res.CPU = pointer(r, r.cpu)
		case "pids":
			res.Pids = pointer(r, func() (p specs.LinuxPids) {
				r.object(func(key string) {
					if key == "limit" {
						p.Limit = pointer(r, r.int64)
						return
					}
					r.skip()
				})
				return p
			})
		case "blockIO":
			r.rare(&res.BlockIO)
		case "hugepageLimits":
			r.rare(&res.HugepageLimits)
		case "network":
			r.rare(&res.Network)
		case "rdma":
			r.rare(&res.Rdma)
		default:
			r.skip()
		}
	})
	return res
}

func (r *reader) int64() int64   { return r.int(64) }
func (r *reader) uint64() uint64 { return r.uint(64) }

func (r *reader) deviceRule() (d specs.LinuxDeviceCgroup) {
	r.object(func(key string) {
		switch key {
		case "allow":
			d.Allow = r.boolean()
		case "type":
			d.Type = r.str()
		case "major":
			d.Major = pointer(r, r.int64)
		case "minor":
			d.Minor = pointer(r, r.int64)
		case "access":
			d.Access = r.str()
		default:
			r.skip()
		}
	})
	return d
}

func (r *reader) memory() (m specs.LinuxMemory) {
	r.object(func(key string) {
		switch key {
		case "limit":
			m.Limit = pointer(r, r.int64)
		case "reservation":
			m.Reservation = pointer(r, r.int64)
		case "swap":
			m.Swap = pointer(r, r.int64)
		case "kernel":
			m.Kernel = pointer(r, r.int64) //nolint:staticcheck // deprecated, and still to be read
		case "kernelTCP":
			m.KernelTCP = pointer(r, r.int64)
		case "swappiness":
			m.Swappiness = pointer(r, r.uint64)
		case "disableOOMKiller":
			m.DisableOOMKiller = pointer(r, r.boolean)
		case "useHierarchy":
			m.UseHierarchy = pointer(r, r.boolean)
		case "checkBeforeUpdate":
			m.CheckBeforeUpdate = pointer(r, r.boolean)
		default:
			r.skip()
		}
	})
	return m
}

func (r *reader) cpu() (c specs.LinuxCPU) {
	r.object(func(key string) {
		switch key {
		case "shares":
			c.Shares = pointer(r, r.uint64)
		case "quota":
			c.Quota = pointer(r, r.int64)
		case "burst":
			c.Burst = pointer(r, r.uint64)
		case "period":
			c.Period = pointer(r, r.uint64)
		case "realtimeRuntime":
			c.RealtimeRuntime = pointer(r, r.int64)
		case "realtimePeriod":
			c.RealtimePeriod = pointer(r, r.uint64)
		case "cpus":
			c.Cpus = r.str()
		case "mems":
			c.Mems = r.str()
		case "idle":
			c.Idle = pointer(r, r.int64)
		default:
			r.skip()
		}
	})
	return c
}
