package engine

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"cale/engine/ocispec"
	"cale/shim"
)

const (
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	initTarget  = "/sbin/docker-init"
	defaultShm  = 64 << 20
)

// ociSpec builds the runtime's configuration of a container from its record. netns is the pinned namespace's path,
// or "" for the host's network.
func (e *Engine) ociSpec(ctx context.Context, c *container, rec *record, r *run) (*specs.Spec, error) {
	s := &rec.Spec
	caps, err := ocispec.Capabilities(s.Security.CapAdd, s.Security.CapDrop, s.Security.Privileged)
	if err != nil {
		return nil, invalid("%v", err)
	}
	spec := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs", Readonly: s.Security.ReadOnly},
		Linux: &specs.Linux{
			CgroupsPath: path.Join(e.cgroupParent(s), rec.ID),
			Sysctl:      sysctls(s),
		},
		Annotations: s.Annotations,
	}
	if spec.Linux.Resources, err = limits(&s.Resources); err != nil {
		return nil, err
	}
	if spec.Process, err = e.ociProcess(c, rec, caps); err != nil {
		return nil, err
	}
	if spec.Linux.Seccomp, err = ocispec.Seccomp(s.Security.Seccomp, caps, s.Security.Privileged); err != nil {
		return nil, invalid("%v", err)
	}
	if err := e.ociNamespaces(ctx, spec, rec, r); err != nil {
		return nil, err
	}
	if err := ociDevices(spec, s); err != nil {
		return nil, err
	}
	ociPaths(spec, s)
	if spec.Mounts, err = e.ociMounts(c, rec); err != nil {
		return nil, err
	}
	if s.Init {
		if err := e.ociInit(spec); err != nil {
			return nil, err
		}
	}
	if err := e.giveDevices(spec, s.Resources.DeviceRequests); err != nil {
		return nil, err
	}
	switch {
	case c.group != nil:
		e.ociMember(spec, c.group, rec)
	case c.idMap() != nil:
		c.ociUser(spec)
	}
	return spec, nil
}

// sysctls are those the client asked for; in a network namespace of its own a container may also use every port and
// send pings, whoever its user is: there is nobody to protect them from.
func sysctls(s *Spec) map[string]string {
	if s.Network.Mode == "host" || strings.HasPrefix(s.Network.Mode, "container:") || s.Member != nil {
		return s.Sysctls
	}
	out := maps.Clone(s.Sysctls)
	mapped, _ := userNamespaceSize(s.UsernsMode) // it was checked
	for key, value := range openNetwork() {
		if key == pingGroups && mapped > 0 {
			continue // not all groups exist there
		}
		if _, set := s.Sysctls[key]; !set {
			if out == nil {
				out = map[string]string{}
			}
			out[key] = value
		}
	}
	return out
}

const pingGroups = "net.ipv4.ping_group_range"

// openNetwork has those of the settings that this kernel knows.
var openNetwork = sync.OnceValue(func() map[string]string {
	out := map[string]string{}
	for key, value := range map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", pingGroups: "0 2147483647"} {
		if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(key, ".", "/")); err == nil {
			out[key] = value
		}
	}
	return out
})

func (e *Engine) cgroupParent(s *Spec) string {
	if s.CgroupParent != "" {
		return path.Join("/", s.CgroupParent)
	}
	return e.cfg.CgroupParent
}

// ociProcess describes the container's first process.
func (e *Engine) ociProcess(c *container, rec *record, caps []string) (*specs.Process, error) {
	s := &rec.Spec
	acc, err := e.accountsOf(c, rec.Layers, rec.Started)
	if err != nil {
		return nil, err
	}
	user, _, err := lookupUser(rec.Run.User, acc, s)
	if err != nil {
		return nil, invalid("%v", err)
	}
	profile, err := apparmorOf(&s.Security)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Terminal: s.TTY, User: user, Cwd: rec.Run.WorkingDir,
		Args:            slices.Concat(rec.Run.Entrypoint, rec.Run.Cmd),
		Env:             processEnv(rec.Run.Env, rec.Run.Hostname, s.TTY),
		NoNewPrivileges: s.Security.NoNewPrivs,
		ApparmorProfile: profile,
	}
	p.User.Umask = s.Umask
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	p.Capabilities = processCaps(caps, user.UID)
	if s.TTY && s.ConsoleSize != [2]uint{} {
		p.ConsoleSize = &specs.Box{Height: s.ConsoleSize[0], Width: s.ConsoleSize[1]}
	}
	if s.OOMScore != 0 {
		p.OOMScoreAdj = &s.OOMScore
	}
	p.Rlimits = rlimits(s)
	return p, nil
}

// rlimits are those of every process in a container.
func rlimits(s *Spec) []specs.POSIXRlimit {
	var out []specs.POSIXRlimit
	for _, u := range s.Resources.Ulimits {
		out = append(out, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return out
}

// processCaps: what a user other than root may gain is bounded, but nothing is given at once, and nothing is ever
// inheritable.
func processCaps(caps []string, uid uint32) *specs.LinuxCapabilities {
	lc := &specs.LinuxCapabilities{Bounding: caps}
	if uid == 0 {
		lc.Effective, lc.Permitted = caps, caps
	}
	return lc
}

// processEnv puts the variables every process gets below those that were configured; a name without "=" takes one away.
func processEnv(env []string, hostname string, tty bool) []string {
	out := []string{defaultPath, "HOSTNAME=" + hostname}
	if tty {
		out = append(out, "TERM=xterm")
	}
	return mergeEnv(out, env)
}

// mergeEnv puts variables over others; a name without "=" takes one away.
func mergeEnv(out, env []string) []string {
	at := make(map[string]int, len(out)+len(env))
	for i, v := range out {
		k, _, _ := strings.Cut(v, "=")
		at[k] = i
	}
	for _, v := range env {
		k, _, set := strings.Cut(v, "=")
		i, known := at[k]
		switch {
		case !set && known:
			out[i] = ""
		case !set:
		case known:
			out[i] = v
		default:
			at[k] = len(out)
			out = append(out, v)
		}
	}
	return slices.DeleteFunc(out, func(v string) bool { return v == "" })
}

// checkModes refuses sharing that makes no sense before a container exists.
func (e *Engine) checkModes(s *Spec) error {
	for _, m := range []struct{ name, mode, allowed string }{
		{"PID", s.PidMode, "host private pod"}, {"IPC", s.IpcMode, "host private shareable none pod"},
		{"UTS", s.UTSMode, "host private"}, {"cgroup", s.CgroupnsMode, "host private"},
	} {
		if m.mode == "" || slices.Contains(strings.Fields(m.allowed), m.mode) {
			continue
		}
		other, ok := strings.CutPrefix(m.mode, "container:")
		if !ok || m.name != "PID" && m.name != "IPC" {
			return invalid("invalid %s mode: %s", m.name, m.mode)
		}
		c, err := e.find(other)
		if err != nil {
			return invalid("%v", err) // of the request, not of what it asks for
		}
		// Whatever it will be called by then: the one that was meant.
		if m.name == "PID" {
			s.PidMode = "container:" + c.id
		} else {
			s.IpcMode = "container:" + c.id
		}
	}
	if other, ok := strings.CutPrefix(s.Network.Mode, "container:"); ok {
		if _, err := e.find(other); err != nil && other == s.Name {
			return invalid("cannot join own network namespace")
		}
		switch {
		case s.Hostname != "":
			return invalid("conflicting options: hostname and the network mode")
		case len(s.Network.Publish) > 0 || s.PublishAll:
			return invalid("conflicting options: port publishing and the container type network mode")
		case len(s.Network.DNS) > 0:
			return invalid("conflicting options: dns and the network mode")
		case len(s.Network.ExtraHosts) > 0:
			return invalid("conflicting options: custom host-to-IP mapping and the network mode")
		case s.Network.MAC != "":
			return invalid("conflicting options: mac-address and the network mode")
		case len(s.Exposed) > 0:
			return invalid("conflicting options: port exposing and the container type network mode")
		}
	}
	if s.UTSMode == "host" && s.Hostname != "" {
		return invalid("conflicting options: hostname and the UTS mode")
	}
	return e.checkUserNamespace(s)
}

// otherNamespace opens a namespace of a running container that another one is to share. The process's number alone
// could be another process's by the time the runtime looks: the shim says after the opening that it was the container's.
func (e *Engine) otherNamespace(ctx context.Context, ref, kind string) (*os.File, error) {
	other, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	notRunning := fmt.Errorf("failed to join %s namespace: container %s is not running", strings.ToUpper(kind), other.id)
	other.mu.Lock()
	r := other.run
	other.mu.Unlock()
	if r == nil || r.pid == 0 {
		return nil, notRunning
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", r.pid, kind))
	if err != nil {
		return nil, notRunning
	}
	st, err := r.shim.State(ctx, other.id, "")
	if err != nil || int(st.Pid) != r.pid || st.Status == shim.StatusStopped {
		f.Close()
		return nil, notRunning
	}
	return f, nil
}

func (e *Engine) ociNamespaces(ctx context.Context, spec *specs.Spec, rec *record, r *run) error {
	s := &rec.Spec
	ns := ocispec.Namespaces()
	netns := r.joined
	if netns == "" {
		delete(ns, specs.NetworkNamespace)
	} else {
		ns[specs.NetworkNamespace] = netns
	}
	for _, share := range []struct {
		mode, file string
		kind       specs.LinuxNamespaceType
	}{{s.PidMode, "pid", specs.PIDNamespace}, {s.IpcMode, "ipc", specs.IPCNamespace}, {s.UTSMode, "uts", specs.UTSNamespace}} {
		if share.mode == "host" {
			delete(ns, share.kind)
		} else if ref, ok := strings.CutPrefix(share.mode, "container:"); ok {
			f, err := e.otherNamespace(ctx, ref, share.file)
			if err != nil {
				return err
			}
			r.held = append(r.held, f)
			ns[share.kind] = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
		}
	}
	if s.CgroupnsMode == "private" || s.CgroupnsMode == "" && ocispec.CgroupV2() && !s.Security.Privileged {
		ns[specs.CgroupNamespace] = ""
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.NetworkNamespace, specs.UTSNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.CgroupNamespace} {
		if p, ok := ns[kind]; ok {
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: p})
		}
	}
	if _, own := ns[specs.UTSNamespace]; own {
		spec.Hostname, spec.Domainname = rec.Run.Hostname, s.Domain
	}
	return nil
}

func ociDevices(spec *specs.Spec, s *Spec) error {
	rules := ocispec.DeviceRules(s.Security.Privileged)
	if s.Security.Privileged {
		devices, _, err := ocispec.Device("/dev", "/dev", "rwm")
		if err != nil {
			return err
		}
		// The runtime makes these itself.
		own := []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console", "/dev/ptmx"}
		for _, d := range devices {
			if !slices.Contains(own, d.Path) {
				spec.Linux.Devices = append(spec.Linux.Devices, d)
			}
		}
	}
	for _, d := range s.Resources.Devices {
		if s.Security.Privileged && (d.Container == "" || d.Container == d.Host) {
			continue
		}
		devices, r, err := ocispec.DeviceAsked(d.Host, d.Container, d.Permissions)
		if err != nil {
			return invalid("%v", err)
		}
		spec.Linux.Devices = append(spec.Linux.Devices, devices...)
		rules = append(rules, r...)
	}
	for _, text := range s.Resources.DeviceCgroupRules {
		r, err := ocispec.DeviceRule(text)
		if err != nil {
			return invalid("%v", err)
		}
		rules = append(rules, r)
	}
	spec.Linux.Resources.Devices = rules
	return nil
}

func ociPaths(spec *specs.Spec, s *Spec) {
	if s.Security.Privileged || s.Security.SystemPaths == "unconfined" {
		return
	}
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = s.Security.MaskedPaths, s.Security.ReadonlyPaths
	if s.Security.MaskedPaths == nil {
		spec.Linux.MaskedPaths = ocispec.MaskedPaths()
	}
	if s.Security.ReadonlyPaths == nil {
		spec.Linux.ReadonlyPaths = ocispec.ReadonlyPaths()
	}
}

// ociInit puts a small init program in front of the container's own.
func (e *Engine) ociInit(spec *specs.Spec) error {
	prog := e.cfg.Init
	for _, name := range []string{"docker-init", "tini-static", "tini", "catatonit"} {
		if prog != "" {
			break
		}
		prog, _ = program(name)
	}
	if prog == "" {
		return invalid("no init program found (docker-init, tini or catatonit): install one, or start the container without --init")
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: initTarget, Type: "bind", Source: prog, Options: []string{"bind", "ro"}})
	spec.Process.Args = append([]string{initTarget, "--"}, spec.Process.Args...)
	return nil
}
