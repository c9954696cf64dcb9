package engine

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cale/engine/ocispec"
	"cale/filetree"
)

// ociMounts lists what is mounted, parents before what lies in them.
func (e *Engine) ociMounts(c *container, rec *record) ([]specs.Mount, error) {
	s := &rec.Spec
	shm := s.ShmSize
	if shm == 0 {
		shm = defaultShm
	}
	ipcOther, ipcShared := strings.CutPrefix(s.IpcMode, "container:")
	ownShm := !ipcShared && s.IpcMode != "host" && s.IpcMode != "none" && s.IpcMode != "shareable" && c.group == nil
	mounts := ocispec.Mounts(shm, ownShm, s.Network.Mode == "host", s.IpcMode == "host", s.Security.Privileged)
	bindShm := func(source string) {
		mounts = append(mounts, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: source, Options: []string{"rbind", "nosuid", "noexec", "nodev"}})
	}
	switch {
	case s.IpcMode == "host":
		bindShm("/dev/shm")
	case c.group != nil:
		bindShm(c.group.ns("shm"))
	case s.IpcMode == "shareable":
		bindShm(filepath.Join(c.pod, "shm"))
	case ipcShared:
		other, err := e.find(ipcOther)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(other.pod, "shm")
		if _, err := os.Stat(path); err != nil {
			return nil, invalid("non-shareable IPC (hint: use IpcMode:shareable for the donor container): %s", other.id)
		}
		bindShm(path)
	}
	if s.CgroupnsMode == "host" && s.Security.Privileged || s.Security.WritableCgroups {
		for i := range mounts {
			if mounts[i].Type == "cgroup" {
				mounts[i].Options = []string{"rw", "nosuid", "noexec", "nodev"}
			}
		}
	}
	var own []specs.Mount
	for i, m := range rec.Mounts {
		om, err := e.ociMount(&m)
		if err == nil && m.Type == "image" {
			om.Source, err = e.pinImage(c, i, &m)
		} else if err == nil && m.Subpath != "" && om.Type == "bind" {
			om.Source, err = c.pinSubpath(i, om.Source, m.Subpath)
		}
		if err != nil {
			return nil, err
		}
		if c.idMap() != nil && om.Type == "bind" && (m.MapOwners || m.Type == "volume" || m.Type == "image" && len(m.Layers) == 1) {
			om.Options = append(om.Options, "idmap")
		}
		own = append(own, om)
	}
	for target, options := range s.Tmpfs {
		o := []string{"noexec", "nosuid", "nodev"}
		if options != "" {
			o = append(o, strings.Split(options, ",")...)
		}
		own = append(own, specs.Mount{Destination: path.Clean(target), Type: "tmpfs", Source: "tmpfs", Options: o})
	}
	taken := map[string]bool{}
	for _, m := range own {
		taken[m.Destination] = true
	}
	mounts = slices.DeleteFunc(mounts, func(m specs.Mount) bool { return taken[m.Destination] })
	writable := "rw"
	if s.Security.ReadOnly {
		writable = "ro"
	}
	etc := []string{"rbind", "rprivate", writable}
	if c.idMap() != nil {
		etc = append(etc, "idmap")
	}
	for _, f := range []struct{ name, target string }{{"resolv.conf", "/etc/resolv.conf"}, {"hostname", "/etc/hostname"}, {"hosts", "/etc/hosts"}} {
		if !taken[f.target] {
			own = append(own, specs.Mount{Destination: f.target, Type: "bind", Source: filepath.Join(e.etcDir(c, s), f.name), Options: etc})
		}
	}
	slices.SortStableFunc(own, func(a, b specs.Mount) int {
		return strings.Count(path.Clean(a.Destination), "/") - strings.Count(path.Clean(b.Destination), "/")
	})
	return append(mounts, own...), nil
}

// etcDir is where a container's hosts, hostname and resolv.conf are: with the container whose network it shares.
func (e *Engine) etcDir(c *container, s *Spec) string {
	if c.group != nil {
		return c.group.dir
	}
	mode, at := s.Network.Mode, c
	for range 16 { // it may in turn share another's
		ref, ok := strings.CutPrefix(mode, "container:")
		if !ok {
			break
		}
		other, err := e.find(ref)
		if err != nil {
			break
		}
		at, mode = other, other.networkMode()
	}
	return at.dir
}

// ociMount translates one mount of the client's, or one volume of the image's.
func (e *Engine) ociMount(m *Mount) (specs.Mount, error) {
	out := specs.Mount{Destination: m.Target}
	switch m.Type {
	case "tmpfs":
		out.Type, out.Source = "tmpfs", "tmpfs"
		out.Options = []string{"noexec", "nosuid", "nodev"}
		if m.TmpfsSize > 0 {
			out.Options = append(out.Options, "size="+strconv.FormatInt(m.TmpfsSize, 10))
		}
		if m.TmpfsMode != 0 {
			out.Options = append(out.Options, fmt.Sprintf("mode=%o", m.TmpfsMode))
		}
		out.Options = append(out.Options, m.TmpfsOptions...)
	case "volume":
		v, err := e.volumes.get(m.Source)
		if err != nil {
			return out, err
		}
		if v.Options["device"] != "" {
			// A volume with a device of its own is mounted in each container by itself.
			out.Type, out.Source = v.Options["type"], v.Options["device"]
			if o := v.Options["o"]; o != "" {
				out.Options = strings.Split(o, ",")
			}
			if out.Type == "none" || out.Type == "" {
				out.Type = "bind"
			}
			break
		}
		out.Type, out.Source = "bind", v.Mountpoint // its subpath, if there is one, is the caller's to open
		out.Options = []string{"rbind", "rprivate"}
	case "image":
		out.Type, out.Options = "bind", []string{"rbind", "rprivate", "nosuid", "nodev", "exec"} // the source is pinImage's
	case "bind":
		out.Type, out.Source = "bind", m.Source
		if _, err := os.Stat(m.Source); os.IsNotExist(err) {
			if !m.CreateSource {
				return out, invalid("invalid mount config for type \"bind\": bind source path does not exist: %s", m.Source)
			}
			if err := os.MkdirAll(m.Source, 0o755); err != nil {
				return out, fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
			}
		}
		kind, propagation := "rbind", m.Propagation
		if m.NonRecursive {
			kind = "bind"
		}
		if propagation == "" {
			propagation = "rprivate"
		}
		out.Options = append([]string{kind, propagation}, m.BindOptions...)
	}
	switch {
	case m.RecursiveReadOnly && (m.ForceRecursive || recursiveAttributes()):
		out.Options = append(out.Options, "rro")
	case m.ReadOnly:
		out.Options = append(out.Options, "ro")
	}
	return out, nil
}

// openSubpath opens a part of a volume; links in the volume can't lead out of it.
func openSubpath(volume, sub string) (int, error) {
	root, err := filetree.Open(volume)
	if err != nil {
		return -1, err
	}
	defer root.Close()
	fd, err := filetree.Openat2(root.FD(), sub, unix.O_PATH, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
	switch {
	case errors.Is(err, unix.EXDEV):
		return -1, invalid("volume subpath %s: path concatenation escapes the base directory", sub)
	case err != nil:
		return -1, invalid("cannot access path %s of the volume: %v", sub, err)
	}
	return fd, nil
}

// recursiveAttributes says whether the kernel can make a whole tree of mounts read-only: mount_setattr(2), Linux 5.12.
var recursiveAttributes = sync.OnceValue(func() bool {
	return unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}) != unix.ENOSYS
})

// pinSubpath mounts a part of a volume below the pod and gives the mount's path. Its own path won't do: whoever has
// the volume too could put a link to the host's files there before the runtime looks it up again.
func (c *container) pinSubpath(i int, volume, sub string) (string, error) {
	fd, err := openSubpath(volume, sub)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", fmt.Errorf("volume subpath: %w", err)
	}
	at := filepath.Join(c.pod, subpaths, strconv.Itoa(i))
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(at, 0o700)
	} else {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err != nil {
		return "", err
	}
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return "", fmt.Errorf("volume subpath: %w", err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return "", fmt.Errorf("mount volume subpath: %w", err)
	}
	return at, nil
}

// subpaths is the directory of a pod in which pinSubpath mounts.
const subpaths = "subpaths"
