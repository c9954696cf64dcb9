package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cale/engine/ocispec"
	"cale/shim"
	"cale/shim/stdio"
)

// joinPod makes a container's Spec fit the pod it is to be in.
func (e *Engine) joinPod(s *Spec) (*pod, error) {
	p, err := e.findPod(s.Member.Pod)
	if err != nil {
		return nil, err
	}
	if !p.ready() {
		return nil, conflict("pod %s is not ready: nothing can be put into it", p.id)
	}
	ps := p.spec()
	m := *s.Member
	m.Pod = p.id
	s.Member = &m
	s.Hostname, s.Runtime, s.CgroupParent = ps.Hostname, ps.Runtime, e.podCgroup(p)
	s.Network = Network{Mode: "none"}
	if ps.HostNetwork {
		s.Network.Mode = "host"
	}
	if s.PidMode == "" && ps.HostPID {
		s.PidMode = "host"
	}
	s.IpcMode = "pod"
	if ps.HostIPC {
		s.IpcMode = "host"
	}
	s.Log = Log{Driver: "none"}
	return p, nil
}

// shimOf gives a connection to the pod's shim, which is started if it doesn't run.
func (e *Engine) shimOf(ctx context.Context, p *pod, program string) (*shim.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shim != nil {
		if p.shim.Alive(ctx) {
			return p.shim, nil
		}
		p.shim.Close()
		p.shim = nil
	}
	s := supervisor{program, p.id, p.run}
	if c, err := shim.Connect(ctx, p.run); err == nil {
		e.lasting(c, s)
		p.shim = c
		return c, nil
	}
	c, err := e.startSupervisor(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("start shim of pod %s: %w", p.id, err)
	}
	p.shim = c
	return c, nil
}

func (p *pod) netns() string {
	if p.spec().HostNetwork {
		return ""
	}
	return p.ns("net")
}

// ociMember changes a container's OCI configuration to what being in a pod of many means.
func (e *Engine) ociMember(spec *specs.Spec, p *pod, rec *record) {
	ps, s := p.spec(), &rec.Spec
	paths := map[specs.LinuxNamespaceType]string{}
	if !ps.HostIPC {
		paths[specs.IPCNamespace] = p.ns("ipc")
	}
	if !ps.HostNetwork {
		paths[specs.UTSNamespace] = p.ns("uts")
	}
	if s.PidMode == "pod" {
		paths[specs.PIDNamespace] = p.ns("pid")
	}
	if ps.User != nil {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		paths[specs.UserNamespace] = p.ns("user")
		spec.Linux.UIDMappings, spec.Linux.GIDMappings = ociIDs(ps.User.UIDs), ociIDs(ps.User.GIDs)
		if ps.HostNetwork {
			bindSys(spec)
		}
	}
	kept := spec.Linux.Namespaces[:0]
	for _, n := range spec.Linux.Namespaces {
		if at, ok := paths[n.Type]; ok {
			n.Path = at
		} else if n.Type == specs.UTSNamespace {
			continue // the host's
		}
		kept = append(kept, n)
	}
	spec.Linux.Namespaces = kept
	spec.Hostname, spec.Domainname = "", "" // the namespace has its name
	spec.Linux.RootfsPropagation = s.Member.RootPropagation
	for _, size := range slices.Sorted(maps.Keys(s.Member.HugepageLimits)) {
		if !hugepageLimits() {
			break // Kubernetes has them limited where they can be
		}
		spec.Linux.Resources.HugepageLimits = append(spec.Linux.Resources.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: size, Limit: s.Member.HugepageLimits[size]})
	}
	if len(s.Member.Unified) > 0 && ocispec.CgroupV2() {
		spec.Linux.Resources.Unified = s.Member.Unified
	}
	if s.Member.Edits != nil {
		s.Member.Edits.apply(spec)
	}
	giveAmbient(spec.Process.Capabilities, s.Member.AmbientCaps)
	if v := spec.Process.OOMScoreAdj; v != nil {
		spec.Process.OOMScoreAdj = attainable(*v)
	}
}

// giveAmbient adds ambient capabilities, which have to be permitted and inheritable too (capabilities(7)).
func giveAmbient(c *specs.LinuxCapabilities, names []string) {
	for _, name := range names {
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted, &c.Inheritable, &c.Ambient} {
			if !slices.Contains(*set, name) {
				*set = append(slices.Clip(*set), name)
			}
		}
	}
}

// bindSys shows the host's sysfs: only who owns the network namespace may mount one.
func bindSys(spec *specs.Spec) {
	for i, m := range spec.Mounts {
		if m.Type == "sysfs" {
			spec.Mounts[i] = specs.Mount{Destination: m.Destination, Type: "bind", Source: "/sys", Options: []string{"rbind", "rslave", "nosuid", "noexec", "nodev", "rro"}}
		}
	}
}

// attainable raises a score to the engine's own where that can't be lowered (without CAP_SYS_RESOURCE): Kubernetes
// asks for scores below it as a matter of course.
func attainable(score int) *int {
	raw, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return &score
	}
	own, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err == nil && score < own && !hasSysResource() {
		score = own
	}
	return &score
}

func hasSysResource() bool {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err == nil && caps&(1<<24) != 0 // CAP_SYS_RESOURCE
		}
	}
	return false
}

// memberGroups settles the supplementary groups as the CRI has them: those asked for, and unless they are to be
// strictly those, the ones that the image's files give the user, whichever way the user was named.
func memberGroups(u *specs.User, user string, acc accounts, s *Spec) error {
	if s.Member.StrictGroups {
		u.AdditionalGids = nil
	} else if name, _, explicit := strings.Cut(user, ":"); explicit {
		byName, _, err := ocispec.LookupUser(name, acc.passwd, acc.group, nil)
		if err != nil {
			return err
		}
		for _, g := range byName.AdditionalGids {
			if g != byName.GID && !slices.Contains(u.AdditionalGids, g) {
				u.AdditionalGids = append(u.AdditionalGids, g)
			}
		}
	}
	for _, text := range s.Security.GroupAdd {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return fmt.Errorf("group %q: not a number", text)
		}
		if !slices.Contains(u.AdditionalGids, uint32(n)) {
			u.AdditionalGids = append(u.AdditionalGids, uint32(n))
		}
	}
	if s.Member.StrictGroups && !slices.Contains(u.AdditionalGids, u.GID) {
		u.AdditionalGids = append(u.AdditionalGids, u.GID)
	}
	return nil
}

// memberStdio is where a member's output goes.
func memberStdio(c *container, s *Spec) stdio.URI {
	u := stdio.URI{Attach: c.attachSocket(), Stdin: s.OpenStdin, StdinOnce: s.StdinOnce, Driver: "none"}
	if s.Member.LogPath != "" {
		u.Log, u.Driver = s.Member.LogPath, "cri"
	}
	return u
}

// ReopenLog has the log of a pod's running container opened anew, after somebody moved the file.
func (e *Engine) ReopenLog(ctx context.Context, ref string) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	r, err := c.running()
	if err != nil {
		return err
	}
	return r.shim.ReopenLog(ctx, c.id)
}

// loadPods reads the pods' records. What runs of them is looked at with the containers.
func (e *Engine) loadPods() error {
	base := filepath.Join(e.cfg.Root, "pods")
	entries, err := os.ReadDir(base)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	for _, d := range entries {
		rec, err := readPod(filepath.Join(base, d.Name(), "pod.json"))
		if err != nil || rec.ID != d.Name() || rec.Version != recordVersion {
			e.cfg.Log("pod %s: its record can't be used (%v); it is removed", d.Name(), err)
			os.RemoveAll(filepath.Join(base, d.Name()))
			continue
		}
		p := e.newPod(rec)
		e.pods[p.id] = p
	}
	return nil
}

// reconcilePods takes up the pods that are there, and takes away what is left of those that are not: cut short while
// they were made or stopped, or ended by a reboot.
func (e *Engine) reconcilePods(ctx context.Context) {
	for _, p := range e.pods {
		if p.rec.Ready && e.podAlive(p) {
			continue
		}
		p.rec.Ready = false
		if err := p.save(); err != nil {
			e.cfg.Log("pod %s: %v", p.id, err)
		}
		if !p.onCNI() {
			_ = e.stopPod(ctx, p, true) // it has told the log
			continue
		}
		p.op.held <- struct{}{} // nobody else knows it yet
		e.work.Go(func() {      // plug-ins may take their time
			defer p.op.unlock()
			ctx, cancel := context.WithTimeout(e.ctx, startTimeout)
			defer cancel()
			_ = e.stopPod(ctx, p, false)
		})
	}
}

// podAlive says whether a pod's namespaces are still pinned.
func (e *Engine) podAlive(p *pod) bool {
	s := p.spec()
	for name, want := range map[string]bool{"net": !s.HostNetwork, "ipc": !s.HostIPC, "shm": !s.HostIPC, "pid": s.SharePID && !s.HostPID, "user": s.User != nil} {
		if want && !isMount(p.ns(name)) {
			return false
		}
	}
	_, err := os.Lstat(p.run)
	return err == nil
}

// lookAtPod asks what became of the containers of one pod.
func (e *Engine) lookAtPod(ctx context.Context, p *pod, found chan<- foundRun) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client, err := e.findSupervisor(ctx, supervisor{e.cfg.Shim, p.id, p.run})
	if err == nil {
		p.shim = client
	}
	for _, c := range e.members(p) {
		if _, err := os.Lstat(c.pod); err != nil {
			continue // it doesn't run
		}
		f := foundRun{id: c.id, c: c}
		if client != nil {
			found <- e.lookThrough(ctx, client, c.pod, f)
			continue
		}
		if f.exit, err = shim.ReadExit(c.pod, c.id); err != nil {
			f.exit = shim.Exit{Status: 137, At: time.Now()}
		}
		found <- f
	}
}

func (e *Engine) anyPodReady() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.pods {
		if p.ready() {
			return true
		}
	}
	return false
}

// lookupUser finds who a container's process is, by its own files.
func lookupUser(user string, acc accounts, s *Spec) (specs.User, string, error) {
	if s.Member == nil {
		return ocispec.LookupUser(user, acc.passwd, acc.group, s.Security.GroupAdd)
	}
	u, home, err := ocispec.LookupUser(user, acc.passwd, acc.group, nil)
	if err == nil {
		err = memberGroups(&u, user, acc, s)
	}
	return u, home, err
}

func readPod(path string) (rec podRecord, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return rec, err
	}
	return rec, json.Unmarshal(raw, &rec)
}

func isMount(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
