package engine

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cale/apparmor"
	"cale/engine/ocispec"
)

// Inspect gives the whole picture of a container; size also measures it, which takes time.
func (e *Engine) Inspect(ctx context.Context, ref string, size bool) (Info, error) {
	c, err := e.find(ref)
	if err != nil {
		return Info{}, err
	}
	info := e.info(c)
	if size {
		e.measure(c, &info)
	}
	return info, nil
}

// List gives all containers, the newest first.
func (e *Engine) List(ctx context.Context, size bool) []Info {
	var out []Info
	for _, c := range e.all() {
		if c.group != nil {
			continue // its pod's client lists it
		}
		info := e.info(c)
		if size {
			e.measure(c, &info)
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b Info) int { return b.Created.Compare(a.Created) })
	links, ids := linksTo(out), map[string]string{}
	for i := range out {
		out[i].LinkedAs = links[out[i].ID]
		e.imageName(&out[i], ids)
	}
	return out
}

// imageName makes a container's image the one it has by its id, where the name it was asked by means another one by
// now, or none. ids are those of the names already looked up.
func (e *Engine) imageName(i *Info, ids map[string]string) {
	ref, platform := i.Spec.Image, i.Spec.Platform
	id, known := ids[ref+" "+platform]
	if !known {
		if img, _, err := e.resolveImage(ref, platform); err == nil {
			id = img.ID.String()
		}
		ids[ref+" "+platform] = id
	}
	if id != i.ImageID {
		i.Spec.Image = i.ImageID
	}
}

// info is all that is known of a container.
func (e *Engine) info(c *container) Info {
	i, rec := c.brief()
	i.HostnamePath, i.HostsPath, i.ResolvPath = filepath.Join(c.dir, "hostname"), filepath.Join(c.dir, "hosts"), filepath.Join(c.dir, "resolv.conf")
	i.UpperDir, i.WorkDir, i.MergedDir = c.upper(), c.work(), filepath.Join(c.pod, "rootfs")
	i.Endpoints, i.Links = e.endpoints(&rec), e.linkNames(&rec.Spec.Network)
	if dirs, err := e.lowers(&rec); err == nil {
		i.LowerDirs = dirs
	}
	for _, m := range rec.Mounts {
		i.Mounts = append(i.Mounts, e.mountPoint(&m))
	}
	e.mu.Lock()
	for id, x := range e.execs {
		if x.c != c {
			continue
		}
		x.mu.Lock()
		if x.exit == nil {
			i.Execs = append(i.Execs, id)
		}
		x.mu.Unlock()
	}
	e.mu.Unlock()
	slices.Sort(i.Execs)
	return i
}

// brief copies a container's record: what is known of it without looking elsewhere. Maps and slices in the record are
// never changed in place, only replaced, so that copies of the record may share them.
func (c *container) brief() (Info, record) {
	c.mu.Lock()
	rec := c.rec
	if c.run != nil && c.run.health != nil {
		rec.State.Health = c.run.health.state()
	}
	c.mu.Unlock()
	i := Info{
		ID: c.id, Name: rec.Name, Created: rec.Created, Spec: rec.Spec, ImageID: rec.ImageID, ImageRef: rec.ImageRef, Manifest: rec.Image,
		State: rec.State, Restarts: rec.Restarts, Run: rec.Run,
	}
	if rec.Spec.Log.Driver != "none" {
		i.LogPath = c.logPath()
	}
	if m := rec.Spec.Member; m != nil {
		i.LogPath = m.LogPath
	}
	args := slices.Concat(rec.Run.Entrypoint, rec.Run.Cmd)
	i.Path, i.Args = args[0], args[1:]
	return i, rec
}

func (e *Engine) mountPoint(m *Mount) MountPoint {
	p := MountPoint{Type: m.Type, Destination: m.Target, RW: !m.ReadOnly, Propagation: m.Propagation}
	if parts := strings.Split(m.Short, ":"); len(parts) == 3 {
		p.Mode = parts[2]
	}
	switch m.Type {
	case "volume":
		p.Name, p.Source, p.Driver = m.Source, e.volumes.data(m.Source), "local"
		if p.Mode == "" && !m.FromImage {
			p.Mode = "z" // Docker's word for a volume that containers share
		}
	case "bind":
		p.Source = m.Source
		if p.Propagation == "" {
			p.Propagation = "rprivate"
		}
	}
	return p
}

func (e *Engine) measure(c *container, i *Info) {
	c.mu.Lock()
	layers := c.rec.Layers
	c.mu.Unlock()
	rw := treeSize(c.upper())
	root := rw
	for _, d := range layers {
		if n, err := e.store.Layers.Size(d); err == nil {
			root += n
		}
	}
	i.SizeRw, i.SizeRootFs = &rw, &root
}

// Info counts and describes.
func (e *Engine) Info(ctx context.Context) SystemInfo {
	s := SystemInfo{Root: e.cfg.Root, CgroupVersion: "1", Architecture: runtime.GOARCH, CPUs: hostCPUs(), Memory: hostMemory(),
		DefaultRuntime: e.cfg.DefaultRuntime, Labels: e.cfg.Labels,
		InstanceID: strings.TrimPrefix(e.cfg.CgroupParent, "/"), Apparmor: apparmor.Enabled()}
	if ocispec.CgroupV2() {
		s.CgroupVersion = "2"
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		// The machine as the kernel names it, x86_64: clients choose platforms by this.
		s.OS, s.KernelVersion, s.Architecture = unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])
	}
	if name := distribution(); name != "" {
		s.OS = name
	}
	if s.Runtimes, _ = e.configuredRuntimes(); s.Runtimes == nil { // settings that can't be read are told to who uses them
		s.Runtimes = map[string]Runtime{}
	}
	s.Runtimes["cale"] = Runtime{Path: e.cfg.Shim}
	if s.DefaultRuntime == "" {
		s.DefaultRuntime = "cale"
	}
	for _, c := range e.all() {
		c.mu.Lock()
		status := c.rec.State.Status
		c.mu.Unlock()
		s.Containers++
		switch status {
		case Running, Restarting:
			s.Running++
		case Paused:
			s.Paused++
		default:
			s.Stopped++
		}
	}
	if images, err := e.Images(ctx, false); err == nil {
		s.Images = len(images)
	}
	return s
}

// distribution is the system's name for itself (os-release(5)); "" where it has none.
func distribution() string {
	for _, file := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
				return strings.Trim(v, `"'`)
			}
		}
	}
	return ""
}
