package runtime

import (
	"encoding/binary"
	"fmt"

	"cale/runtime/landlock"
	"cale/runtime/launch"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// landlocked is what a process is held to by Landlock, worked out for this kernel.
type landlocked struct {
	rules *landlock.Rules
	attr  landlock.Attr
	abi   int
}

// newLandlocked reads the annotation, if there is one.
func newLandlocked(s *specs.Spec) (*landlocked, error) {
	text, ok := s.Annotations[landlock.Annotation]
	if !ok {
		return nil, nil
	}
	rules, err := landlock.Parse(text)
	if err != nil {
		return nil, err
	}
	abi, err := landlock.ABI()
	if err != nil {
		return nil, err
	}
	attr, err := rules.Attr(abi)
	if err != nil {
		return nil, err
	}
	return &landlocked{rules, attr, abi}, nil
}

// emit restricts the process. It is in the container and its own user by now, so paths are the container's, and as far
// as that user may look.
func (l *landlocked) emit(p *launch.Program) {
	p.Step("landlock: make the rules")
	set := p.Call(unix.SYS_LANDLOCK_CREATE_RULESET, launch.Copy(p, l.attr), launch.N(l.attr.Size(l.abi)), launch.N(0)).New()
	const pathBeneath, netPort = 1, 2
	for _, r := range l.rules.Paths {
		p.Step("landlock: rule for " + r.Path)
		dir, file := l.attr.Access(r)
		fd := p.Call(unix.SYS_OPENAT, atCwd, p.Str(r.Path), launch.N(unix.O_PATH|unix.O_CLOEXEC), launch.N(0)).New()
		done := p.Label()
		for i, access := range []uint64{dir, file} {
			attr := p.Mem(16) // struct landlock_path_beneath_attr, which is packed
			binary.NativeEndian.PutUint64(attr, access)
			p.Store32(launch.Ptr(attr), 8, fd)
			add := p.Call(unix.SYS_LANDLOCK_ADD_RULE, set.Arg(), launch.N(pathBeneath), launch.Ptr(attr), launch.N(0))
			if i == 0 {
				add.Accept(unix.EINVAL).Then(done) // not a directory: only a file's rights can be given
			}
		}
		p.Bind(done)
		p.Close(fd)
	}
	for _, r := range l.rules.Ports {
		p.Step(fmt.Sprintf("landlock: rule for port %d", r.Port))
		p.Call(unix.SYS_LANDLOCK_ADD_RULE, set.Arg(), launch.N(netPort), launch.Copy(p, [2]uint64{r.Access, uint64(r.Port)}), launch.N(0))
	}
	p.Step("landlock: restrict the process")
	p.Call(unix.SYS_LANDLOCK_RESTRICT_SELF, set.Arg(), launch.N(0))
	p.Close(set)
}
