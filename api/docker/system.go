package docker

import (
	"mime"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"

	"cale/engine"
)

func (s *Server) ping(w http.ResponseWriter, r *request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Swarm", "inactive")
	h.Set("Builder-Version", "2")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, _ = w.Write([]byte("OK"))
	return nil
}

// engineVersion is what clients compare with the versions of Docker's engine.
func (s *Server) engineVersion() string { return likeDocker + "+cale." + s.opts.Version }

func (s *Server) version(w http.ResponseWriter, r *request) error {
	kernel := s.engine.Info(r.Context()).KernelVersion
	return writeJSON(w, http.StatusOK, system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Cale"}, Version: s.engineVersion(), APIVersion: APIVersion, MinAPIVersion: minAPIVersion,
		Os: "linux", Arch: runtime.GOARCH, GitCommit: s.opts.Commit, GoVersion: runtime.Version(), KernelVersion: kernel,
		Components: []system.ComponentVersion{{Name: "Engine", Version: s.opts.Version, Details: map[string]string{
			"ApiVersion": APIVersion, "MinAPIVersion": minAPIVersion, "Arch": runtime.GOARCH, "Os": "linux",
			"GitCommit": s.opts.Commit, "GoVersion": runtime.Version(), "KernelVersion": kernel, "Experimental": strconv.FormatBool(engine.CanCheckpoint()),
		}}},
	})
}

func (s *Server) info(w http.ResponseWriter, r *request) error {
	i := s.engine.Info(r.Context())
	name, _ := os.Hostname()
	out := system.Info{
		ID: i.InstanceID, Containers: i.Containers, ContainersRunning: i.Running, ContainersPaused: i.Paused, ContainersStopped: i.Stopped,
		Images: i.Images, Driver: "overlay2", DriverStatus: [][2]string{
			// By this clients know of a store that keeps images of many platforms, attestations and indexes whole.
			{"driver-type", "io.containerd.snapshotter.v1"},
			{"Layers", "one tree each, shared by digest"},
		},
		Plugins:     system.PluginsInfo{Volume: []string{"local"}, Network: []string{"bridge", "host", "ipvlan", "macvlan", "null"}, Log: []string{"journald", "json-file", "local", "none"}},
		MemoryLimit: true, SwapLimit: true, CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true, CPUSet: true, PidsLimit: true,
		IPv4Forwarding: true, OomKillDisable: i.CgroupVersion == "1",
		NGoroutines: runtime.NumGoroutine(), SystemTime: time.Now().Format(time.RFC3339Nano), LoggingDriver: "json-file",
		CgroupDriver: "cgroupfs", CgroupVersion: i.CgroupVersion, KernelVersion: i.KernelVersion, OperatingSystem: i.OS, OSType: "linux",
		Architecture: i.Architecture, IndexServerAddress: "https://index.docker.io/v1/", NCPU: i.CPUs, MemTotal: i.Memory,
		RegistryConfig: &registry.ServiceConfig{}, DockerRootDir: i.Root, HTTPProxy: os.Getenv("HTTP_PROXY"), HTTPSProxy: os.Getenv("HTTPS_PROXY"), NoProxy: os.Getenv("NO_PROXY"),
		Name: name, Labels: i.Labels, ServerVersion: s.engineVersion(), DefaultRuntime: i.DefaultRuntime,
		Runtimes: map[string]system.RuntimeWithStatus{}, LiveRestoreEnabled: true, ExperimentalBuild: engine.CanCheckpoint(), SecurityOptions: []string{"name=seccomp,profile=builtin", "name=cgroupns"},
		Warnings: []string{},
		Swarm:    swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
	}
	if i.Apparmor {
		out.SecurityOptions = append([]string{"name=apparmor"}, out.SecurityOptions...)
	}
	if i.CgroupVersion == "2" {
		out.SwapLimit = true
	}
	out.CDISpecDirs = s.engine.CDIDirs()
	for _, d := range s.engine.CDIDevices() {
		out.DiscoveredDevices = append(out.DiscoveredDevices, system.DeviceInfo{Source: "cdi", ID: d})
	}
	for n, rt := range i.Runtimes {
		out.Runtimes[n] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: rt.Path, Args: rt.Args}}
	}
	if r.before("1.50") {
		return writeJSON(w, http.StatusOK, struct {
			system.Info
			BridgeNfIptables, BridgeNfIp6tables bool
		}{Info: out})
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) events(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r, "type", "event", "container", "image", "volume", "network", "daemon", "label", "scope")
	if err != nil {
		return err
	}
	now := time.Now()
	since, err := parseTime(r.text("since"), now)
	if err != nil {
		return err
	}
	until, err := parseTime(r.text("until"), now)
	if err != nil {
		return err
	}
	if !until.IsZero() && since.After(until) {
		return invalid("`since` time (%s) cannot be after `until` time (%s)", r.text("since"), r.text("until"))
	}
	ch := s.engine.Subscribe(r.Context(), since, until)
	kind, sequence := eventStream(r)
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	if fl, ok := w.(http.Flusher); ok {
		fl.Flush()
	}
	for e := range ch {
		if !eventMatches(f, e) {
			continue
		}
		attrs := orEmpty(e.Attributes)
		m := struct {
			Status string `json:"status,omitempty"`
			ID     string `json:"id,omitempty"`
			From   string `json:"from,omitempty"`
			events.Message
		}{Message: events.Message{
			Type: events.Type(e.Type), Action: events.Action(e.Action), Actor: events.Actor{ID: e.ID, Attributes: attrs},
			Scope: "local", Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(),
		}}
		if r.before("1.52") && (e.Type == "container" || e.Type == "image") {
			m.Status, m.ID, m.From = e.Action, e.ID, attrs["image"]
		}
		if sequence {
			if _, err := w.Write([]byte{0x1e}); err != nil { // RFC 7464 begins each text with a record separator
				return nil
			}
		}
		if writeBody(w, m) != nil {
			return nil
		}
	}
	return nil
}

// eventStream chooses the form of events among those that the client takes; sequence is RFC 7464's.
func eventStream(r *request) (kind string, sequence bool) {
	known := map[string]string{"application/json-seq": "1.52", "application/x-ndjson": "1.52", "application/jsonl": "1.53"}
	for _, offer := range strings.Split(r.Header.Get("Accept"), ",") {
		t, _, err := mime.ParseMediaType(strings.TrimSpace(offer))
		if since, ok := known[t]; err == nil && ok && !r.before(since) {
			return t, t == "application/json-seq"
		}
	}
	return "application/json", false
}

func eventMatches(f filters, e engine.Event) bool {
	actor := func(kind string) func(string) bool {
		return func(v string) bool {
			return e.Type == kind && (strings.HasPrefix(e.ID, v) || strings.HasPrefix(e.Attributes["name"], v)) // Docker's own looseness
		}
	}
	// An image is meant with or without its tag, and containers of it are too.
	ofImage := func(v string) bool {
		name := e.Attributes["name"]
		if e.Type == "container" {
			name = e.Attributes["image"]
		}
		if e.Type != "image" && e.Type != "container" {
			return false
		}
		repo, _, _ := cutTag(name)
		return v == name || v == repo || e.Type == "image" && actor("image")(v)
	}
	return f.match("type", func(v string) bool { return v == e.Type }) &&
		f.match("event", func(v string) bool { return v == e.Action || strings.HasPrefix(e.Action, v+":") }) &&
		f.match("scope", func(v string) bool { return v == "local" }) &&
		f.match("container", actor("container")) && f.match("image", ofImage) &&
		f.match("volume", actor("volume")) && f.match("network", actor("network")) && f.match("daemon", actor("daemon")) &&
		f.labels(e.Attributes)
}

// none answers a list of what Cale never has.
func (s *Server) swarm(w http.ResponseWriter, r *request) error {
	writeError(w, http.StatusServiceUnavailable, "This node is not a swarm manager: Cale runs containers on one machine, Kubernetes drives many")
	return nil
}
