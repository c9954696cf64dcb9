package runtime

import (
	"fmt"
	"strings"

	"cale/runtime/launch"
	"cale/runtime/linux"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capSets are a process's five sets, worked out once.
type capSets struct {
	set                                                  bool // false: the process keeps what it has
	bounding, effective, permitted, inheritable, ambient uint64
}

// newCapSets turns names into sets. What can't be had (the kernel doesn't know it, or we don't have it to give) is
// left out with a warning, since callers ask for "all" by naming all.
func newCapSets(c *specs.LinuxCapabilities, userNS bool, warn func(string)) capSets {
	var s capSets
	s.set = true
	if c == nil {
		return s
	}
	var missing []string
	unknown := func(n string) {
		for _, m := range missing {
			if m == n {
				return
			}
		}
		missing = append(missing, n)
	}
	have := uint64(1)<<(linux.LastCapability()+1) - 1
	if !userNS {
		have = linux.PermittedCapabilities()
	}
	get := func(names []string) uint64 {
		set := spec.Capabilities(names, unknown)
		if set&^have != 0 {
			for _, n := range names {
				if i, ok := linux.Capability(n); ok && set&^have&(1<<i) != 0 {
					unknown(n)
				}
			}
		}
		return set & have
	}
	s.bounding, s.effective, s.permitted = get(c.Bounding), get(c.Effective), get(c.Permitted)
	s.inheritable, s.ambient = get(c.Inheritable), get(c.Ambient)
	// The kernel wants effective within permitted, and ambient within permitted and inheritable.
	s.effective &= s.permitted
	for c, bad := 0, s.ambient&^(s.permitted&s.inheritable); bad != 0; c, bad = c+1, bad>>1 {
		if bad&1 != 0 {
			warn(fmt.Sprintf("can't raise ambient capability %s: it is not permitted and inheritable", linux.CapabilityNames()[c]))
		}
	}
	s.ambient &= s.permitted & s.inheritable
	if len(missing) > 0 {
		warn(fmt.Sprintf("ignoring unknown or unavailable capabilities: [%s]", strings.Join(missing, " ")))
	}
	return s
}

func (s *capSets) emitBounding(p *launch.Program) {
	p.Step("drop capabilities from the bounding set")
	for c := 0; c <= linux.LastCapability(); c++ {
		if s.bounding&(1<<c) == 0 {
			p.Call(unix.SYS_PRCTL, launch.N(unix.PR_CAPBSET_DROP), launch.N(c), launch.N(0), launch.N(0), launch.N(0))
		}
	}
}

// emit sets the sets. With keepAdmin CAP_SYS_ADMIN stays until the execve, for a seccomp filter without
// no_new_privs; the execve takes it away: what a program gets is worked out from the bounding, inheritable and
// ambient sets only.
func (s *capSets) emit(p *launch.Program, keepAdmin bool) {
	p.Step("set capabilities")
	eff, perm := s.effective, s.permitted
	if keepAdmin {
		eff |= 1 << unix.CAP_SYS_ADMIN
		perm |= 1 << unix.CAP_SYS_ADMIN
	}
	hdr := launch.Copy(p, unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3})
	data := launch.Copy(p, [2]unix.CapUserData{
		{Effective: uint32(eff), Permitted: uint32(perm), Inheritable: uint32(s.inheritable)},
		{Effective: uint32(eff >> 32), Permitted: uint32(perm >> 32), Inheritable: uint32(s.inheritable >> 32)},
	})
	p.Call(unix.SYS_CAPSET, hdr, data)
	p.Step("set ambient capabilities")
	ambient := func(op, c int) {
		p.Call(unix.SYS_PRCTL, launch.N(unix.PR_CAP_AMBIENT), launch.N(op), launch.N(c), launch.N(0), launch.N(0))
	}
	ambient(unix.PR_CAP_AMBIENT_CLEAR_ALL, 0)
	for c := 0; c <= linux.LastCapability(); c++ {
		if s.ambient&(1<<c) != 0 {
			ambient(unix.PR_CAP_AMBIENT_RAISE, c)
		}
	}
}
