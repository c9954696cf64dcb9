package runtime

import (
	"encoding/json"
	"io"
	"os"
	"testing"

	"cale/runtime/launch"
	"cale/runtime/rootfs"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// FuzzProgram: a configuration of anyone becomes a list of system calls that holds together, or an error. Nothing of it
// is executed, and nothing of the host's is opened.
func FuzzProgram(f *testing.F) {
	s := spec.Default()
	raw, _ := json.Marshal(s)
	f.Add(raw)
	spec.Rootless(s, 1000, 1000)
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch}
	s.Process.User.AdditionalGids = []uint32{1, 2}
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 2}}
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "p"}}
	s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0-3"}
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActNotify, ListenerPath: "/x"}
	s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/x"}}}
	s.Annotations = map[string]string{"cale.landlock": "read=/ connect=1"}
	raw, _ = json.Marshal(s)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := spec.Parse(raw)
		if err != nil {
			return
		}
		bundle := t.TempDir()
		if err := os.Mkdir(bundle+"/rootfs", 0o755); err != nil {
			t.Fatal(err)
		}
		s.Root = &specs.Root{Path: "rootfs", Readonly: s.Root != nil && s.Root.Readonly}
		if spec.Validate(s) != nil || s.Process == nil {
			return
		}
		for i := range s.Linux.Namespaces {
			s.Linux.Namespaces[i].Path = ""
		}
		kept := s.Mounts[:0]
		for _, m := range s.Mounts {
			if m.Type != "cgroup" && m.Type != "cgroup2" && m.Type != "overlay" && len(m.UIDMappings)+len(m.GIDMappings) == 0 {
				kept = append(kept, m)
			}
		}
		s.Mounts = kept
		ns, err := newNamespaces(s, false)
		if err != nil {
			return
		}
		defer ns.close()
		hasUser := spec.HasNamespace(s, specs.UserNamespace)
		tree, err := rootfs.Prepare(rootfs.Options{Spec: s, Bundle: bundle, NewUser: hasUser, Unprivileged: true,
			HostMounts: !spec.HasNamespace(s, specs.MountNamespace)})
		if err != nil {
			return
		}
		defer tree.Close()
		pr, err := newProcess(s.Process, [3]*os.File{}, 0, hasUser, s.Linux.Seccomp, func(string) {})
		if err != nil {
			return
		}
		defer pr.close()
		if pr.landlock, err = newLandlocked(s); err != nil {
			return
		}
		plan := &initPlan{spec: s, ns: ns, tree: tree, proc: pr, setgroups: true, hooks: s.Hooks != nil}
		p := launch.New()
		defer p.Free()
		if plan.emit(p) != nil {
			return
		}
		if err := p.Explain(io.Discard); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	})
}
