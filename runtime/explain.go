package runtime

import (
	"io"
	"os"
	"path/filepath"

	"cale/runtime/launch"
	"cale/runtime/rootfs"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Explain writes the syscall program of a bundle's container as text. It makes nothing, and leaves out what only the
// creation knows: control groups, and the wait for the start.
func Explain(bundle string, w io.Writer) error {
	bundle, err := filepath.Abs(bundle)
	if err != nil {
		return err
	}
	s, _, err := spec.Load(filepath.Join(bundle, spec.File))
	if err != nil {
		return err
	}
	if err := spec.Validate(s); err != nil {
		return err
	}
	if s.Process == nil {
		return ErrNoProcess
	}
	ns, err := newNamespaces(s, true)
	if err != nil {
		return err
	}
	defer ns.close()
	hasUser := spec.HasNamespace(s, specs.UserNamespace)
	kept := s.Mounts[:0]
	for _, m := range s.Mounts {
		if m.Type != "cgroup" && m.Type != "cgroup2" {
			kept = append(kept, m)
		}
	}
	s.Mounts = kept
	tree, err := rootfs.Prepare(rootfs.Options{Spec: s, Bundle: bundle, NewUser: hasUser,
		HostMounts: !spec.HasNamespace(s, specs.MountNamespace), UserNS: openUserNS})
	if err != nil {
		return err
	}
	defer tree.Close()
	pr, err := newProcess(s.Process, [3]*os.File{}, 0, hasUser, s.Linux.Seccomp, func(string) {})
	if err != nil {
		return err
	}
	defer pr.close()
	if pr.landlock, err = newLandlocked(s); err != nil {
		return err
	}
	plan := &initPlan{spec: s, ns: ns, tree: tree, proc: pr, setgroups: true, hooks: s.Hooks != nil}
	p := launch.New()
	defer p.Free()
	if err := plan.emit(p); err != nil {
		return err
	}
	return p.Explain(w)
}
