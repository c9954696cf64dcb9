package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"cale/atomicfile"
	"cale/engine/ocispec"
	"cale/image/store"
	"cale/logfile"
)

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// Create makes a container from an image that is there already.
func (e *Engine) Create(ctx context.Context, s Spec) (id string, warnings []string, err error) {
	defer e.begin()()
	raw := make([]byte, 32)
	rand.Read(raw) // never fails
	id = hex.EncodeToString(raw)
	var group *pod
	if s.Member != nil {
		if group, err = e.joinPod(&s); err != nil {
			return "", nil, err
		}
		if e.hooks.Create != nil {
			if err := e.hooks.Create(ctx, id, &s); err != nil {
				return "", nil, err
			}
		}
	}
	if err := e.checkSpec(&s); err != nil {
		return "", nil, err
	}
	img, ref, err := e.resolveImage(s.Image, s.Platform)
	if err != nil {
		return "", nil, err
	}
	warnings = append(warningsFor(&s), s.Resources.settle()...)
	name, err := e.reserveName(s.Name, id)
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			e.releaseName(name, id)
		}
	}()

	rec := record{Version: recordVersion, ID: id, Name: name, Created: time.Now(), Spec: s, ImageID: img.ID.String(),
		ImageRef: ref, Manifest: img.ManifestDescriptor.Digest, Layers: img.Config.DiffIDs}
	manifest := img.ManifestDescriptor
	manifest.Platform = &img.Config.Platform
	rec.Image = &manifest
	rec.Spec.Name = name
	rec.State.Status = Created
	if rec.Run, err = merge(&rec.Spec, img); err != nil {
		return "", nil, err
	}
	if rec.Run.Hostname, err = e.hostname(&rec.Spec, id); err != nil {
		return "", nil, err
	}
	if rec.User, err = e.takeIDs(&rec.Spec, id); err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			e.giveIDs(id)
		}
	}()
	if rec.Disk, err = diskSize(s.StorageOpt); err != nil {
		return "", nil, err
	}
	c := e.newContainer(rec)
	c.group = group
	if err := e.leaseImage(id, img); err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			e.store.RemoveLease(id)
		}
	}()
	// What was loaded, or pushed into our registry, is unpacked by the first container that wants it.
	if err := e.unpack(ctx, img); err != nil {
		return "", nil, fmt.Errorf("image %s: %w", ref, err)
	}
	if c.rec.Init, err = e.imageFitsInit(img); err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("container %s: %w", id, err)
	}
	var made []string // volumes, to be removed again
	defer func() {
		if err != nil {
			c.dropDisk()
			os.RemoveAll(c.dir)
			for _, v := range made {
				e.VolumeRemove(context.WithoutCancel(ctx), v, true)
			}
		}
	}()
	if err := c.makeDisk(ctx); err != nil {
		return "", nil, fmt.Errorf("container %s: %w", id, err)
	}
	for _, d := range []string{c.upper(), c.work()} {
		if err := mkdir(d, 0o755); err != nil {
			return "", nil, fmt.Errorf("container %s: %w", id, err)
		}
	}
	if c.rec.Mounts, made, err = e.resolveMounts(ctx, c, img); err != nil {
		return "", nil, err
	}
	c.mu.Lock()
	durable := c.keep() && c.group == nil // who drives pods makes them anew after a power cut
	err = c.save(durable)
	if err == nil && durable {
		err = atomicfile.SyncDir(filepath.Dir(c.dir))
	}
	c.mu.Unlock()
	if err != nil {
		return "", nil, err
	}
	e.mu.Lock()
	e.containers[id] = c
	e.mu.Unlock()
	e.emit(c, "create")
	return id, warnings, nil
}

// mkdir makes a directory whose mode our umask has no part in: it becomes part of what a container sees.
func mkdir(path string, mode os.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// hostname is what a container is called: as it was asked for, or as the one whose network it shares, or by its id.
func (e *Engine) hostname(s *Spec, id string) (string, error) {
	ref, shares := strings.CutPrefix(s.Network.Mode, "container:")
	switch {
	case s.Hostname != "":
		return s.Hostname, nil
	case s.Network.Mode == "host" || s.UTSMode == "host":
		return os.Hostname()
	case shares:
		other, err := e.find(ref)
		if err != nil {
			break // it may be there when this one is started
		}
		other.mu.Lock()
		defer other.mu.Unlock()
		return other.rec.Run.Hostname, nil
	}
	return id[:12], nil
}

// reserveName takes a name for an id, or chooses one. A name in use is a conflict at once, also while its container
// is still being made.
func (e *Engine) reserveName(name, id string) (string, error) {
	name = strings.TrimPrefix(name, "/")
	if name != "" && !validName.MatchString(name) {
		return "", invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if name == "" {
		for name = randomName(); e.names[name] != ""; {
			name = randomName() + id[:4]
		}
	}
	if other := e.names[name]; other != "" {
		return "", conflict("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, other)
	}
	e.names[name] = id
	return name, nil
}

func (e *Engine) releaseName(name, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.names[name] == id {
		delete(e.names, name)
	}
}

// checkSpec refuses what can't work, before anything is made.
func (e *Engine) checkSpec(s *Spec) error {
	for _, v := range s.Env {
		if v == "" || strings.HasPrefix(v, "=") || strings.ContainsRune(v, 0) {
			return invalid("invalid environment variable: %s", v)
		}
	}
	if s.WorkingDir != "" {
		if !filepath.IsAbs(s.WorkingDir) {
			return invalid("the working directory '%s' is invalid, it needs to be an absolute path", s.WorkingDir)
		}
		s.WorkingDir = filepath.Clean(s.WorkingDir)
	}
	if _, empty := s.Annotations[""]; empty {
		return invalid("invalid Annotations: the empty string is not permitted as an annotation key")
	}
	if s.Umask != nil && *s.Umask > 0o777 {
		return invalid("invalid umask %#o: it must be from 0 to 0777", *s.Umask)
	}
	switch {
	case s.OOMScore < -1000 || s.OOMScore > 1000:
		return invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", s.OOMScore)
	case s.ShmSize < 0:
		return invalid("SHM size can not be less than 0")
	case s.StopTimeout != nil && *s.StopTimeout < -1:
		return invalid("invalid stop timeout %d: it must be a number of seconds, or -1 to wait for ever", *s.StopTimeout)
	}
	if s.Hostname != "" && len(s.Hostname) > 64 {
		return invalid("invalid hostname %q: longer than 64 bytes", s.Hostname)
	}
	switch s.Restart.Name {
	case "", "no", "always", "unless-stopped":
		if s.Restart.Retries != 0 {
			return invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'")
		}
	case "on-failure":
		if s.Restart.Retries < 0 {
			return invalid("invalid restart policy: maximum retry count cannot be negative")
		}
	default:
		return invalid("invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", s.Restart.Name)
	}
	if s.AutoRemove && s.Restart.Name != "" && s.Restart.Name != "no" {
		return invalid("can't create 'AutoRemove' container with restart policy")
	}
	switch s.Log.Driver {
	case "", "json-file", "local", "none":
	case "journald":
		if _, err := os.Stat(logfile.JournalSocket); err != nil {
			return fail(ErrUnsupported, "failed to initialize logging driver: journald is not enabled on this host: %v", err)
		}
	case "awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "splunk", "syslog":
		return fail(ErrUnsupported, "failed to initialize logging driver: no log driver named '%s' is registered: it is not built in Cale yet, json-file, local, journald and none are", s.Log.Driver)
	default:
		return invalid("logger: no log driver named '%s' is registered: there are json-file, local, journald and none", s.Log.Driver)
	}
	if _, err := logTag(&record{Spec: *s}); err != nil {
		return err
	}
	if _, _, err := logLimits(s.Log); err != nil {
		return err
	}
	if s.StopSignal != "" {
		if _, err := parseSignal(s.StopSignal); err != nil {
			return err
		}
	}
	for k := range s.Sysctls {
		if err := checkSysctl(k, s); err != nil {
			return err
		}
	}
	if err := checkResources(&s.Resources); err != nil {
		return err
	}
	if _, err := ocispec.Capabilities(s.Security.CapAdd, s.Security.CapDrop, s.Security.Privileged); err != nil {
		return invalid("%v", err)
	}
	if s.Runtime != "" {
		if _, err := e.runtimeFor(s.Runtime); err != nil {
			return err
		}
	}
	if err := e.checkModes(s); err != nil {
		return err
	}
	if err := e.settleLinks(&s.Network); err != nil {
		return err
	}
	if err := checkNetworks(&s.Network); err != nil {
		return err
	}
	switch s.OnUnhealthy {
	case "", "kill", "restart", "stop":
	default:
		return invalid("invalid action on failing health checks: %q; use one of 'none', 'kill', 'restart', or 'stop'", s.OnUnhealthy)
	}
	return checkHealth(s.Health)
}

// checkSysctl refuses settings that would reach beyond the container's own namespaces.
func checkSysctl(key string, s *Spec) error {
	norm := strings.ReplaceAll(key, "/", ".")
	ipc := map[string]bool{"kernel.msgmax": true, "kernel.msgmnb": true, "kernel.msgmni": true, "kernel.sem": true,
		"kernel.shmall": true, "kernel.shmmax": true, "kernel.shmmni": true, "kernel.shm_rmid_forced": true}
	if strings.ContainsAny(norm, " \n\x00") || strings.Contains(norm, "..") {
		return invalid("invalid sysctl %q", key)
	}
	switch {
	case ipc[norm], strings.HasPrefix(norm, "fs.mqueue."):
		if s.IpcMode == "host" {
			return invalid("sysctl '%s' can't be set with the host's IPC namespace", key)
		}
		return nil
	case strings.HasPrefix(norm, "net."):
		if s.Network.Mode == "host" {
			return invalid("sysctl '%s' can't be set with the host's network namespace", key)
		}
		return nil
	}
	return invalid("sysctl %q is not in a separate kernel namespace", key)
}

func warningsFor(s *Spec) []string {
	var w []string
	if s.Network.Mode == "host" && (len(s.Network.Publish) > 0 || s.PublishAll) {
		w = append(w, "Published ports are discarded when using host network mode")
	}
	return w
}

// merge puts the image's configuration under the client's. Image data ends up in what the process is told, never in
// what steers the engine.
func merge(s *Spec, img *store.Image) (Effective, error) {
	from := &img.Config.Run
	r := Effective{
		Entrypoint: s.Entrypoint, Cmd: s.Cmd, User: s.User, WorkingDir: s.WorkingDir, Hostname: s.Hostname,
		StopSignal: s.StopSignal, Shell: from.Shell, OnBuild: from.OnBuild, Labels: map[string]string{},
	}
	if len(r.Entrypoint) == 0 {
		if len(r.Cmd) == 0 {
			r.Cmd = from.Cmd
		}
		if r.Entrypoint == nil {
			r.Entrypoint = from.Entrypoint
		}
	}
	if len(r.Entrypoint) == 1 && r.Entrypoint[0] == "" {
		r.Entrypoint = nil
	}
	if len(r.Entrypoint)+len(r.Cmd) == 0 {
		return r, invalid("no command specified")
	}
	r.Env = append(r.Env, s.Env...)
	set := map[string]bool{}
	for _, v := range s.Env {
		k, _, _ := strings.Cut(v, "=")
		set[k] = true
	}
	for _, v := range from.Env {
		if k, _, _ := strings.Cut(v, "="); !set[k] && k != "" && !strings.ContainsRune(v, 0) {
			r.Env = append(r.Env, v)
		}
	}
	if r.User == "" {
		r.User = from.User
	}
	if r.WorkingDir == "" {
		r.WorkingDir = from.WorkingDir
	}
	if r.StopSignal == "" {
		if _, err := parseSignal(from.StopSignal); err == nil {
			r.StopSignal = from.StopSignal
		}
	}
	for k, v := range from.Labels {
		r.Labels[k] = v
	}
	for k, v := range s.Labels {
		r.Labels[k] = v
	}
	r.Volumes = mergeVolumes(from.Volumes, s.AnonymousVolumes)
	r.Exposed = mergePorts(from.ExposedPorts, s)
	r.Health = mergeHealth(s.Health, from.Healthcheck)
	return r, nil
}
