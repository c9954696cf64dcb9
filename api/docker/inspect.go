package docker

import (
	"net/http"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"cale/engine"
	"cale/image"
)

func (s *Server) containerInspect(w http.ResponseWriter, r *request) error {
	info, err := s.engine.Inspect(r.Context(), r.name(), r.flag("size"))
	if err != nil {
		return err
	}
	out := inspectResponse(&info)
	if r.before("1.48") {
		out.ImageManifestDescriptor = nil
	}
	if !r.before("1.52") {
		return writeJSON(w, http.StatusOK, out)
	}
	// The outer field hides the embedded one: it has what older clients read besides.
	return writeJSON(w, http.StatusOK, struct {
		*container.InspectResponse
		NetworkSettings networkSettings
	}{out, networkSettings{out.NetworkSettings, legacyNetwork(&info)}})
}

func inspectResponse(i *engine.Info) *container.InspectResponse {
	out := &container.InspectResponse{
		ID: i.ID, Created: stamp(i.Created), Path: i.Path, Args: i.Args, State: dockerState(&i.State),
		Image: i.ImageID, ResolvConfPath: i.ResolvPath, HostnamePath: i.HostnamePath, HostsPath: i.HostsPath, LogPath: i.LogPath,
		Name: "/" + i.Name, RestartCount: i.Restarts, Driver: "overlay2", Platform: "linux",
		ExecIDs: i.Execs, HostConfig: toHostConfig(&i.Spec), SizeRw: i.SizeRw, SizeRootFs: i.SizeRootFs,
		Config: dockerConfig(i), Mounts: []container.MountPoint{},
		NetworkSettings: &container.NetworkSettings{Ports: portMap(i), Networks: endpoints(i)},
	}
	for _, l := range i.Links {
		name, alias, _ := strings.Cut(l, ":")
		out.HostConfig.Links = append(out.HostConfig.Links, "/"+name+":/"+i.Name+"/"+alias)
	}
	if out.Args == nil {
		out.Args = []string{}
	}
	if m := i.Manifest; m != nil {
		out.ImageManifestDescriptor = manifestDescriptor(m)
	}
	if i.UpperDir != "" {
		out.GraphDriver = &storage.DriverData{Name: "overlay2", Data: map[string]string{
			"LowerDir": strings.Join(i.LowerDirs, ":"), "UpperDir": i.UpperDir, "WorkDir": i.WorkDir, "MergedDir": i.MergedDir,
		}}
	}
	for _, m := range i.Mounts {
		out.Mounts = append(out.Mounts, dockerMount(m))
	}
	return out
}

func manifestDescriptor(m *image.Descriptor) *ocispec.Descriptor {
	d := &ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.Digest(m.Digest.String()), Size: m.Size}
	if p := m.Platform; p != nil {
		d.Platform = &ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
	}
	return d
}

func dockerMount(m engine.MountPoint) container.MountPoint {
	return container.MountPoint{
		Type: mount.Type(m.Type), Name: m.Name, Source: m.Source, Destination: m.Destination, Driver: m.Driver,
		Mode: m.Mode, RW: m.RW, Propagation: mount.Propagation(m.Propagation),
	}
}

func dockerState(s *engine.State) *container.State {
	out := &container.State{
		Status: container.ContainerState(s.Status), Running: s.Status == engine.Running || s.Status == engine.Paused || s.Status == engine.Restarting,
		Paused: s.Status == engine.Paused, Restarting: s.Status == engine.Restarting, OOMKilled: s.OOMKilled,
		Dead: s.Status == engine.Dead, Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error,
		StartedAt: stamp(s.StartedAt), FinishedAt: stamp(s.FinishedAt),
	}
	if h := s.Health; h != nil {
		out.Health = &container.Health{Status: container.HealthStatus(h.Status), FailingStreak: h.FailingStreak, Log: []*container.HealthcheckResult{}}
		for _, l := range h.Log {
			out.Health.Log = append(out.Health.Log, &container.HealthcheckResult{Start: l.Start, End: l.End, ExitCode: l.ExitCode, Output: l.Output})
		}
	}
	return out
}

func dockerConfig(i *engine.Info) *container.Config {
	s := &i.Spec
	c := &container.Config{
		Hostname: i.Run.Hostname, Domainname: s.Domain, User: i.Run.User,
		AttachStdin: s.AttachStdin, AttachStdout: s.AttachStdout, AttachStderr: s.AttachStderr,
		Tty: s.TTY, OpenStdin: s.OpenStdin, StdinOnce: s.StdinOnce,
		Env: i.Run.Env, Cmd: i.Run.Cmd, Entrypoint: i.Run.Entrypoint, Image: s.Image, WorkingDir: i.Run.WorkingDir,
		Labels: orEmpty(i.Run.Labels), StopSignal: i.Run.StopSignal, StopTimeout: s.StopTimeout, OnBuild: i.Run.OnBuild, Shell: i.Run.Shell,
		ExposedPorts: portSet(i.Run.Exposed),
	}
	if len(i.Run.Volumes) > 0 {
		c.Volumes = map[string]struct{}{}
		for _, v := range i.Run.Volumes {
			c.Volumes[v] = struct{}{}
		}
	}
	if h := i.Run.Health; h != nil {
		c.Healthcheck = &container.HealthConfig{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries}
	}
	return c
}

func portSet(ports []engine.Port) network.PortSet {
	if len(ports) == 0 {
		return nil
	}
	set := network.PortSet{}
	for _, p := range ports {
		if port, ok := dockerPort(p); ok {
			set[port] = struct{}{}
		}
	}
	return set
}

// published lists where a container's ports are reachable; a port published on every address is told for IPv4 and
// IPv6 each, as Docker does.
func published(i *engine.Info) []engine.Publish {
	var all []engine.Publish
	for _, e := range i.Endpoints {
		all = append(all, e.Published...)
	}
	slices.SortStableFunc(all, func(a, b engine.Publish) int {
		if a.Number != b.Number {
			return int(a.Number) - int(b.Number)
		}
		if a.HostPort != b.HostPort {
			return int(a.HostPort) - int(b.HostPort)
		}
		return a.HostIP.Compare(b.HostIP)
	})
	var out []engine.Publish
	for _, p := range all {
		if p.HostIP.IsValid() {
			out = append(out, p)
			continue
		}
		p4, p6 := p, p
		p4.HostIP, p6.HostIP = netip.IPv4Unspecified(), netip.IPv6Unspecified()
		out = append(out, p4, p6)
	}
	return slices.Compact(out)
}

func portMap(i *engine.Info) network.PortMap {
	m := network.PortMap{}
	for _, p := range i.Run.Exposed {
		if port, ok := dockerPort(p); ok && len(i.Endpoints) > 0 {
			m[port] = nil
		}
	}
	for _, p := range published(i) {
		if port, ok := dockerPort(p.Port); ok {
			m[port] = append(m[port], network.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.HostPort))})
		}
	}
	return m
}

func endpoints(i *engine.Info) map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	for name, e := range i.Endpoints {
		es := &network.EndpointSettings{
			NetworkID: e.NetworkID, EndpointID: e.EndpointID, Aliases: e.Aliases, Links: e.Links, GwPriority: e.GwPriority,
			Gateway: e.Gateway, IPv6Gateway: e.Gateway6,
		}
		if e.AskedIPv4.IsValid() || e.AskedIPv6.IsValid() {
			es.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: e.AskedIPv4, IPv6Address: e.AskedIPv6}
		}
		es.IPAddress, es.IPPrefixLen = prefix(e.IPv4)
		es.GlobalIPv6Address, es.GlobalIPv6PrefixLen = prefix(e.IPv6)
		_ = es.MacAddress.UnmarshalText([]byte(e.MAC))
		out[name] = es
	}
	if len(out) == 0 {
		mode := i.Spec.Network.Mode
		if mode == "" || mode == "default" {
			mode = "bridge"
		}
		if !strings.HasPrefix(mode, "container:") {
			out[mode] = &network.EndpointSettings{}
		}
	}
	return out
}

func prefix(p netip.Prefix) (netip.Addr, int) {
	if !p.IsValid() {
		return netip.Addr{}, 0
	}
	return p.Addr(), p.Bits()
}

// networkSettings is Docker's type with the fields that clients before API 1.52, and most scripts, read.
type networkSettings struct {
	*container.NetworkSettings
	legacyNetworkSettings
}

type legacyNetworkSettings struct {
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                netip.Addr
	GlobalIPv6Address      netip.Addr
	GlobalIPv6PrefixLen    int
	IPAddress              netip.Addr
	IPPrefixLen            int
	IPv6Gateway            netip.Addr
	MacAddress             string
}

// legacyNetwork tells of the default network alone, as Docker did.
func legacyNetwork(i *engine.Info) legacyNetworkSettings {
	e, ok := i.Endpoints["bridge"]
	if !ok {
		return legacyNetworkSettings{}
	}
	out := legacyNetworkSettings{EndpointID: e.EndpointID, MacAddress: e.MAC, Gateway: e.Gateway, IPv6Gateway: e.Gateway6}
	out.IPAddress, out.IPPrefixLen = prefix(e.IPv4)
	out.GlobalIPv6Address, out.GlobalIPv6PrefixLen = prefix(e.IPv6)
	return out
}

var containerFilters = []string{"id", "name", "label", "status", "exited", "ancestor", "before", "since", "volume", "network", "publish", "expose", "health", "annotation", "is-task", "isolation"}

func (s *Server) containerList(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r, containerFilters...)
	if err != nil {
		return err
	}
	limit := 0
	if l := r.text("limit"); l != "" && l != "-1" {
		if limit, err = strconv.Atoi(l); err != nil || limit < 0 {
			return invalid("invalid limit %q", l)
		}
	}
	infos := s.engine.List(r.Context(), r.flag("size"))
	owners := r.flag("all-owners") // ours: Docker's clients see none but their own
	if owners {
		members, err := s.engine.Members("")
		if err != nil {
			return err
		}
		infos = append(infos, members...)
	}
	sort.SliceStable(infos, func(i, j int) bool { return infos[i].Created.After(infos[j].Created) })
	keep, err := s.containerFilter(r, f, infos)
	if err != nil {
		return err
	}
	all := r.flag("all") || limit > 0 || len(f["status"]) > 0 || len(f["exited"]) > 0
	out := []listed{}
	for i := range infos {
		c := &infos[i]
		live := c.State.Status == engine.Running || c.State.Status == engine.Paused || c.State.Status == engine.Restarting
		if !all && !live || !keep(c) {
			continue
		}
		entry := listed{Summary: r.summary(c), RestartCount: c.Restarts}
		if owners {
			entry.Owner = ownerOf(c)
		}
		out = append(out, entry)
		if limit > 0 && len(out) == limit {
			break
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// listed is a container in a list, with what Docker's has not.
type listed struct {
	container.Summary
	RestartCount int    `json:",omitempty"`
	Owner        string `json:",omitempty"` // in a list of all owners'
}

// ownerOf says whose client made a container.
func ownerOf(c *engine.Info) string {
	if m := c.Spec.Member; m != nil {
		return "kubernetes " + m.Owner
	}
	return "docker"
}

// summary is a container in a list.
func (r *request) summary(c *engine.Info) container.Summary {
	out := container.Summary{
		ID: c.ID, Names: []string{"/" + c.Name}, Image: c.Spec.Image, ImageID: c.ImageID,
		Command: strings.Join(append([]string{c.Path}, c.Args...), " "), Created: c.Created.Unix(),
		Labels: orEmpty(c.Run.Labels), State: container.ContainerState(c.State.Status), Status: statusText(&c.State),
		NetworkSettings: &container.NetworkSettingsSummary{Networks: endpoints(c)}, Mounts: []container.MountPoint{}, Ports: []container.PortSummary{},
	}
	out.HostConfig.NetworkMode = string(toHostConfig(&c.Spec).NetworkMode)
	out.HostConfig.Annotations = c.Spec.Annotations
	if !r.before("1.52") {
		out.Health = &container.HealthSummary{Status: container.NoHealthcheck}
		if h := c.State.Health; h != nil {
			out.Health = &container.HealthSummary{Status: container.HealthStatus(h.Status), FailingStreak: h.FailingStreak}
		}
	}
	for _, as := range c.LinkedAs {
		out.Names = append(out.Names, "/"+as)
	}
	if c.Manifest != nil && !r.before("1.48") {
		out.ImageManifestDescriptor = manifestDescriptor(c.Manifest)
	}
	if c.SizeRw != nil {
		out.SizeRw = *c.SizeRw
	}
	if c.SizeRootFs != nil {
		out.SizeRootFs = *c.SizeRootFs
	}
	for _, m := range c.Mounts {
		out.Mounts = append(out.Mounts, dockerMount(m))
	}
	seen := map[engine.Port]bool{}
	for _, p := range published(c) {
		seen[p.Port] = true
		out.Ports = append(out.Ports, container.PortSummary{IP: p.HostIP, PrivatePort: p.Number, PublicPort: p.HostPort, Type: p.Protocol})
	}
	for _, p := range c.Run.Exposed {
		// As Docker has it: of what doesn't run no port is shown.
		if running := c.State.Status == engine.Running || c.State.Status == engine.Paused; running && !seen[p] && len(c.Endpoints) > 0 {
			out.Ports = append(out.Ports, container.PortSummary{PrivatePort: p.Number, Type: p.Protocol})
		}
	}
	return out
}

// statusText is the STATUS column: Up 5 minutes (healthy), Exited (0) 2 hours ago.
func statusText(s *engine.State) string {
	switch s.Status {
	case engine.Running, engine.Paused:
		t := "Up " + units.HumanDuration(time.Since(s.StartedAt))
		if s.Status == engine.Paused {
			return t + " (Paused)"
		}
		if s.Health != nil {
			if s.Health.Status == "starting" {
				return t + " (health: starting)"
			}
			return t + " (" + s.Health.Status + ")"
		}
		return t
	case engine.Restarting:
		return "Restarting (" + strconv.Itoa(s.ExitCode) + ") " + ago(s.FinishedAt)
	case engine.Removing:
		return "Removal In Progress"
	case engine.Dead:
		return "Dead"
	case engine.Created:
		return "Created"
	}
	if s.FinishedAt.IsZero() {
		return "Exited (" + strconv.Itoa(s.ExitCode) + ")"
	}
	return "Exited (" + strconv.Itoa(s.ExitCode) + ") " + ago(s.FinishedAt)
}

func ago(t time.Time) string { return units.HumanDuration(time.Since(t)) + " ago" }

// containerFilter makes the predicate that a list's filters describe.
func (s *Server) containerFilter(r *request, f filters, infos []engine.Info) (func(*engine.Info) bool, error) {
	var before, since time.Time
	for name, at := range map[string]*time.Time{"before": &before, "since": &since} {
		for _, ref := range f[name] {
			i, err := s.engine.Inspect(r.Context(), ref, false)
			if err != nil {
				return nil, err
			}
			*at = i.Created
		}
	}
	for _, st := range f["status"] {
		if err := container.ValidateContainerState(container.ContainerState(st)); err != nil {
			return nil, invalid("invalid filter 'status=%s': %v", st, err)
		}
	}
	ancestors := map[string]bool{}
	for _, a := range f["ancestor"] {
		ancestors[a] = true
		if img, err := s.engine.Image(r.Context(), a); err == nil {
			ancestors[img.ID] = true
		}
	}
	for _, e := range f["exited"] {
		if _, err := strconv.Atoi(e); err != nil {
			return nil, invalid("invalid filter 'exited=%s'", e)
		}
	}
	return func(c *engine.Info) bool {
		if !before.IsZero() && !c.Created.Before(before) || !since.IsZero() && !c.Created.After(since) {
			return false
		}
		if len(ancestors) > 0 && !ancestors[c.ImageID] && !ancestors[c.Spec.Image] {
			return false
		}
		health := "none"
		if c.State.Health != nil {
			health = c.State.Health.Status
		}
		return f.labels(c.Run.Labels) && f.pairs("annotation", c.Spec.Annotations) &&
			f.match("id", func(v string) bool { return strings.HasPrefix(c.ID, v) }) &&
			f.match("name", func(v string) bool { return nameMatches(v, c.Name) }) &&
			f.match("status", func(v string) bool { return v == string(c.State.Status) }) &&
			f.match("health", func(v string) bool { return v == health }) &&
			f.match("exited", func(v string) bool {
				return v == strconv.Itoa(c.State.ExitCode) && (c.State.Status == engine.Exited || c.State.Status == engine.Dead)
			}) &&
			f.match("volume", func(v string) bool {
				return slices.ContainsFunc(c.Mounts, func(m engine.MountPoint) bool { return m.Name == v || m.Destination == v || m.Source == v })
			}) &&
			f.match("network", func(v string) bool {
				for name, e := range c.Endpoints {
					if name == v || v != "" && strings.HasPrefix(e.NetworkID, v) {
						return true
					}
				}
				return v == c.Spec.Network.Mode
			}) &&
			f.match("publish", func(v string) bool {
				onHost := published(c)
				for i := range onHost {
					onHost[i].Number = onHost[i].HostPort
				}
				return portMatches(v, onHost)
			}) &&
			f.match("expose", func(v string) bool {
				exposed := make([]engine.Publish, 0, len(c.Run.Exposed))
				for _, p := range c.Run.Exposed {
					exposed = append(exposed, engine.Publish{Port: p})
				}
				return portMatches(v, exposed)
			})
	}, nil
}

func portMatches(want string, ports []engine.Publish) bool {
	rng, err := network.ParsePortRange(want)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(ports, func(p engine.Publish) bool {
		return p.Number >= rng.Start() && p.Number <= rng.End() && p.Protocol == string(rng.Proto())
	})
}
