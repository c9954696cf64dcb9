package spec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// seccomp is read here too, since nearly every engine's configuration has a long list of rules.
func (r *reader) seccomp() (s specs.LinuxSeccomp) {
	errno := func() uint { return uint(r.uint(32)) }
	r.object(func(key string) {
		switch key {
		case "defaultAction":
			s.DefaultAction = specs.LinuxSeccompAction(r.str())
		case "defaultErrnoRet":
			s.DefaultErrnoRet = pointer(r, errno)
		case "architectures":
			s.Architectures = list(r, func() specs.Arch { return specs.Arch(r.str()) })
		case "flags":
			s.Flags = list(r, func() specs.LinuxSeccompFlag { return specs.LinuxSeccompFlag(r.str()) })
		case "listenerPath":
			s.ListenerPath = r.str()
		case "listenerMetadata":
			s.ListenerMetadata = r.str()
		case "syscalls":
			s.Syscalls = list(r, func() (c specs.LinuxSyscall) {
				r.object(func(key string) {
					switch key {
					case "names":
						c.Names = r.strs()
					case "action":
						c.Action = specs.LinuxSeccompAction(r.str())
					case "errnoRet":
						c.ErrnoRet = pointer(r, errno)
					case "args":
						c.Args = list(r, r.seccompArg)
					default:
						r.skip()
					}
				})
				return c
			})
		default:
			r.skip()
		}
	})
	return s
}

func (r *reader) seccompArg() (a specs.LinuxSeccompArg) {
	r.object(func(key string) {
		switch key {
		case "index":
			a.Index = uint(r.uint(32))
		case "value":
			a.Value = r.uint(64)
		case "valueTwo":
			a.ValueTwo = r.uint(64)
		case "op":
			a.Op = specs.LinuxSeccompOperator(r.str())
		default:
			r.skip()
		}
	})
	return a
}
