package cri

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
	"cale/engine/ocispec"
	"cale/runtime/linux"
)

// maxProfile bounds a seccomp profile's file.
const maxProfile = 1 << 20

// containerSpec translates a request. Only what the request says steers the host; the image's own configuration is
// merged in by the engine, which lets it set what the process is told and nothing else.
func (s *Server) containerSpec(ctx context.Context, pod *engine.PodInfo, r *runtimeapi.CreateContainerRequest) (spec engine.Spec, err error) {
	c := r.Config
	sec := c.GetLinux().GetSecurityContext()
	if c.GetImage().GetImage() == "" {
		return spec, invalid("the container has no image")
	}
	image := c.Image.Image
	if ref := c.Image.ImageRef; ref != "" {
		image = ref
	}
	asked := cmp.Or(c.Image.UserSpecifiedImage, c.Image.Image)
	if err := s.engine.AllowIn(ctx, podMeta(&pod.PodState).Config.Metadata.Namespace, asked, image); err != nil {
		return spec, known(err)
	}
	spec = engine.Spec{
		Image: image, Entrypoint: c.Command, Cmd: c.Args, WorkingDir: c.WorkingDir,
		TTY: c.Tty, OpenStdin: c.Stdin, StdinOnce: c.StdinOnce,
		Security: engine.Security{
			Privileged: sec.GetPrivileged(), ReadOnly: sec.GetReadonlyRootfs(), NoNewPrivs: sec.GetNoNewPrivs(),
			CapAdd: sec.GetCapabilities().GetAddCapabilities(), CapDrop: sec.GetCapabilities().GetDropCapabilities(),
			// What is not named is none, as the CRI has it: a kubelet names the usual ones.
			MaskedPaths: append([]string{}, sec.GetMaskedPaths()...), ReadonlyPaths: append([]string{}, sec.GetReadonlyPaths()...),
		},
		OOMScore: int(c.GetLinux().GetResources().GetOomScoreAdj()),
		Member:   &engine.Member{Pod: pod.ID, Owner: ownerOf(pod, c), StrictGroups: sec.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Strict},
	}
	if spec.Member.AmbientCaps, err = ocispec.Capabilities(sec.GetCapabilities().GetAddAmbientCapabilities(), []string{"ALL"}, false); err != nil {
		return spec, invalid("ambient capabilities: %v", err)
	}
	if sec.GetPrivileged() && !podMeta(&pod.PodState).Config.GetLinux().GetSecurityContext().GetPrivileged() {
		return spec, invalid("a privileged container needs a privileged pod")
	}
	if devices := cdiDevices(c); len(devices) > 0 {
		if spec.Member.Edits, err = s.engine.EditsOf(devices); err != nil {
			return spec, err
		}
	}
	for _, kv := range c.Envs {
		spec.Env = append(spec.Env, kv.Key+"="+string(kv.Value))
	}
	if spec.Security.Seccomp, err = seccompOf(sec.GetSeccomp(), sec.GetSeccompProfilePath()); err != nil {
		return spec, err
	}
	if sec.GetPrivileged() { // as the CRI has it, whatever profile is named
		spec.Security.Seccomp = "unconfined"
	}
	switch p, old := sec.GetApparmor(), sec.GetApparmorProfile(); {
	case p == nil && old == "unconfined":
		spec.Security.AppArmor = old
	case p == nil && strings.HasPrefix(old, "localhost/"):
		spec.Security.AppArmor = strings.TrimPrefix(old, "localhost/")
	case p == nil && old != "" && old != "runtime/default":
		return spec, invalid("AppArmor profile %q: it can be runtime/default, unconfined or localhost/NAME", old)
	case p == nil:
	case p.ProfileType == runtimeapi.SecurityProfile_Localhost:
		spec.Security.AppArmor = strings.TrimPrefix(p.LocalhostRef, "localhost/")
	case p.ProfileType == runtimeapi.SecurityProfile_Unconfined:
		spec.Security.AppArmor = "unconfined"
	}
	if spec.User, err = userSpec(sec); err != nil {
		return spec, err
	}
	for _, g := range sec.GetSupplementalGroups() {
		spec.Security.GroupAdd = append(spec.Security.GroupAdd, strconv.FormatInt(g, 10))
	}
	switch ns := sec.GetNamespaceOptions(); ns.GetPid() {
	case runtimeapi.NamespaceMode_POD:
		spec.PidMode = "private"
		if pod.Spec.SharePID {
			spec.PidMode = "pod"
		}
	case runtimeapi.NamespaceMode_CONTAINER:
		spec.PidMode = "private"
	case runtimeapi.NamespaceMode_NODE:
		spec.PidMode = "host"
	case runtimeapi.NamespaceMode_TARGET:
		target, err := s.engine.Member(ns.GetTargetId())
		if err != nil {
			return spec, err
		}
		if target.Spec.Member.Pod != pod.ID {
			return spec, invalid("target container %s is in another pod", target.ID)
		}
		spec.PidMode = "container:" + target.ID
	}
	own, err := idMap(sec.GetNamespaceOptions().GetUsernsOptions())
	if err != nil {
		return spec, err
	}
	if own != nil && !reflect.DeepEqual(own, pod.Spec.User) {
		return spec, invalid("the container's user namespace is not its pod's")
	}
	for _, d := range c.Devices {
		spec.Resources.Devices = append(spec.Resources.Devices, engine.Device{Host: d.HostPath, Container: d.ContainerPath, Permissions: d.Permissions})
	}
	if err := s.setMounts(ctx, &spec, pod, c.Mounts); err != nil {
		return spec, err
	}
	if res := c.GetLinux().GetResources(); res != nil {
		setResources(&spec.Resources, res)
		setMember(spec.Member, res)
	}
	if sig := c.StopSignal; sig != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		spec.StopSignal = signalName(sig)
	}
	if spec.Member.LogPath, err = logPath(podMeta(&pod.PodState).Config.LogDirectory, c.LogPath); err != nil {
		return spec, err
	}
	spec.Member.Meta, err = proto.Marshal(c)
	return spec, err
}

func ownerOf(pod *engine.PodInfo, c *runtimeapi.ContainerConfig) string {
	m := podMeta(&pod.PodState).Config.Metadata
	return m.GetNamespace() + "/" + m.GetName() + "/" + c.GetMetadata().GetName()
}

// cdiAnnotation begins the names of annotations that device plug-ins name devices by, parted by commas.
const cdiAnnotation = "cdi.k8s.io/"

// cdiDevices are the devices that a request names, by field or by annotation, each once.
func cdiDevices(c *runtimeapi.ContainerConfig) (names []string) {
	for _, d := range c.CDIDevices {
		names = append(names, d.Name)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Annotations)) {
		if strings.HasPrefix(k, cdiAnnotation) {
			names = append(names, strings.Split(c.Annotations[k], ",")...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// logPath is where a container's log goes: never outside of the pod's directory, which the request names.
func logPath(dir, name string) (string, error) {
	if dir == "" || name == "" {
		return "", nil
	}
	if !filepath.IsAbs(dir) || !filepath.IsLocal(name) {
		return "", invalid("log path %q in %q: it has to be a relative path within an absolute directory", name, dir)
	}
	full := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return "", err
	}
	return full, nil
}

// seccompOf reads a profile: without one a container is unconfined, as the CRI has it.
func seccompOf(p *runtimeapi.SecurityProfile, old string) (string, error) {
	file := ""
	switch {
	case p == nil && (old == "" || old == "unconfined"):
		return "unconfined", nil
	case p == nil && (old == "runtime/default" || old == "docker/default"):
		return "", nil
	case p == nil:
		file = strings.TrimPrefix(old, "localhost/")
	case p.ProfileType == runtimeapi.SecurityProfile_RuntimeDefault:
		return "", nil
	case p.ProfileType == runtimeapi.SecurityProfile_Unconfined:
		return "unconfined", nil
	default:
		file = strings.TrimPrefix(p.LocalhostRef, "localhost/")
	}
	if !filepath.IsAbs(file) {
		return "", invalid("seccomp profile %q: not an absolute path", file)
	}
	f, err := os.Open(file)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", invalid("seccomp profile: %v", err)
		}
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err != nil {
		return "", err
	}
	if len(raw) > maxProfile {
		return "", invalid("seccomp profile %s: larger than 1 MiB", file)
	}
	return string(raw), nil
}

func userSpec(sec *runtimeapi.LinuxContainerSecurityContext) (string, error) {
	user := sec.GetRunAsUsername()
	if id := sec.GetRunAsUser(); id != nil {
		user = strconv.FormatInt(id.Value, 10)
	}
	if strings.Contains(user, ":") {
		return "", invalid("user %q: a group does not belong here", user)
	}
	if id := sec.GetRunAsGroup(); id != nil {
		if user == "" {
			return "", invalid("a group to run as needs a user")
		}
		user += ":" + strconv.FormatInt(id.Value, 10)
	}
	return user, nil
}

func (s *Server) setMounts(ctx context.Context, spec *engine.Spec, pod *engine.PodInfo, mounts []*runtimeapi.Mount) error {
	for _, m := range mounts {
		if m.GetImage().GetImage() != "" {
			i, err := s.engine.Image(ctx, m.Image.Image)
			if err != nil {
				return err
			}
			if m.HostPath != "" || !m.Readonly {
				return invalid("mount %s: an image volume is read-only and has no path of the host", m.ContainerPath)
			}
			if sub := m.ImageSubPath; sub != "" {
				if !filepath.IsLocal(sub) {
					return invalid("mount %s: image sub-path %q: it has to be a relative path within the image", m.ContainerPath, sub)
				}
				if err := s.engine.ImageHas(ctx, i.ID, sub); err != nil {
					return err
				}
			}
			spec.Mounts = append(spec.Mounts, engine.Mount{Type: "image", Source: i.ID, Target: m.ContainerPath, ReadOnly: true, Subpath: m.ImageSubPath})
			continue
		}
		for _, o := range m.MountOptions {
			if o != "noexec" && o != "nodev" && o != "nosuid" {
				return invalid("mount %s: option %q: it can be noexec, nodev or nosuid", m.ContainerPath, o)
			}
		}
		out := engine.Mount{Type: "bind", Source: m.HostPath, Target: m.ContainerPath, ReadOnly: m.Readonly, CreateSource: true, BindOptions: m.MountOptions}
		if len(m.UidMappings)+len(m.GidMappings) > 0 {
			if !reflect.DeepEqual(&engine.IDMap{UIDs: idRanges(m.UidMappings), GIDs: idRanges(m.GidMappings)}, pod.Spec.User) {
				return invalid("mount %s: its owners are mapped otherwise than by the pod's user namespace", m.ContainerPath)
			}
			out.MapOwners = true
		}
		if !path.IsAbs(out.Target) {
			out.Target = "/" + out.Target
		}
		if out.Source != "" { // the request names a path of the host: links in it are the host's
			if real, err := filepath.EvalSymlinks(out.Source); err == nil {
				out.Source = real
			}
		}
		if err := canPropagate(m, out.Source); err != nil {
			return err
		}
		switch m.Propagation {
		case runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
			// The engine's default, which is a slave where the mount shows the engine's own folders.
		case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
			out.Propagation = "rslave"
			if spec.Member.RootPropagation == "" {
				spec.Member.RootPropagation = "rslave"
			}
		case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
			out.Propagation, spec.Member.RootPropagation = "rshared", "rshared"
		default:
			return invalid("mount %s: unknown propagation %s", m.ContainerPath, m.Propagation)
		}
		if m.RecursiveReadOnly {
			if !m.Readonly || m.Propagation != runtimeapi.MountPropagation_PROPAGATION_PRIVATE {
				return invalid("mount %s: recursively read-only needs read-only, and private propagation", m.ContainerPath)
			}
			out.RecursiveReadOnly = true
		}
		spec.Mounts = append(spec.Mounts, out)
	}
	return nil
}

// canPropagate refuses a mount whose propagation would silently not be: what is on the host has to take part in it.
func canPropagate(m *runtimeapi.Mount, source string) error {
	if m.Propagation == runtimeapi.MountPropagation_PROPAGATION_PRIVATE || source == "" {
		return nil
	}
	shared, slave, err := linux.Propagation(source)
	switch {
	case err != nil:
		return invalid("mount %s: %v", m.ContainerPath, err)
	case m.Propagation == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL && !shared:
		return invalid("mount %s: what is mounted in the container can't reach the host: %s is on a mount that is not shared (mount --make-shared)", m.ContainerPath, source)
	case !shared && !slave:
		return invalid("mount %s: what is mounted on the host can't reach the container: %s is on a mount that is neither shared nor a slave", m.ContainerPath, source)
	}
	return nil
}

func setResources(to *engine.Resources, r *runtimeapi.LinuxContainerResources) {
	if r.CpuPeriod != 0 {
		to.CPUPeriod = r.CpuPeriod
	}
	if r.CpuQuota != 0 {
		to.CPUQuota = r.CpuQuota
	}
	if r.CpuShares != 0 {
		to.CPUShares = r.CpuShares
	}
	if r.CpusetCpus != "" {
		to.CpusetCPUs = r.CpusetCpus
	}
	if r.CpusetMems != "" {
		to.CpusetMems = r.CpusetMems
	}
	if r.MemoryLimitInBytes != 0 {
		to.Memory = r.MemoryLimitInBytes
		to.MemorySwap = 0
		if engine.SwapLimits() { // no swap unless it was asked for
			to.MemorySwap = to.Memory
		}
	}
	if r.MemorySwapLimitInBytes != 0 && engine.SwapLimits() {
		to.MemorySwap = r.MemorySwapLimitInBytes
	}
}

func setMember(m *engine.Member, r *runtimeapi.LinuxContainerResources) {
	m.Unified = r.Unified
	for _, h := range r.HugepageLimits {
		if m.HugepageLimits == nil {
			m.HugepageLimits = map[string]uint64{}
		}
		m.HugepageLimits[h.PageSize] = h.Limit
	}
}

func resourcesOf(s *engine.Spec, m *runtimeapi.ContainerConfig) *runtimeapi.LinuxContainerResources {
	asked := m.GetLinux().GetResources()
	r := &s.Resources
	out := &runtimeapi.LinuxContainerResources{CpuPeriod: r.CPUPeriod, CpuQuota: r.CPUQuota, CpuShares: r.CPUShares, CpusetCpus: r.CpusetCPUs, CpusetMems: r.CpusetMems,
		MemoryLimitInBytes: r.Memory, MemorySwapLimitInBytes: r.MemorySwap, OomScoreAdj: int64(s.OOMScore), HugepageLimits: asked.GetHugepageLimits(), Unified: asked.GetUnified()}
	return out
}

// signalName writes a signal of the protocol as the engine has it: SIGNAL_SIGRTMINPLUS1 is SIGRTMIN+1.
func signalName(s runtimeapi.Signal) string {
	name := strings.TrimPrefix(s.String(), "SIGNAL_")
	name = strings.Replace(name, "PLUS", "+", 1)
	return strings.Replace(name, "RTMAXMINUS", "RTMAX-", 1)
}

// signalOf is the reverse; nothing is the default, SIGTERM.
func signalOf(name string) runtimeapi.Signal {
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if n, err := strconv.Atoi(name); err == nil {
		return signalByNumber(n)
	}
	if name == "" {
		return runtimeapi.Signal_SIGNAL_SIGTERM
	}
	name = strings.Replace(strings.Replace(name, "RTMIN+", "RTMINPLUS", 1), "RTMAX-", "RTMAXMINUS", 1)
	return runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_SIG"+name])
}

func signalByNumber(n int) runtimeapi.Signal {
	return runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+unix.SignalName(unix.Signal(n))])
}
