package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cale/runtime/launch"
	"cale/runtime/linux"
	"cale/runtime/overlay"
	"cale/shim"
)

// IDMap says which of the host's ids those of a user namespace are. Files of images, volumes and containers are kept
// with the owners that containers know: they are mapped where they are mounted.
type IDMap struct {
	UIDs, GIDs []IDRange
}

// IDRange maps Size ids, from Container on, to those from Host on.
type IDRange struct {
	Container, Host, Size uint32
}

func (m *IDMap) check() error {
	for name, list := range map[string][]IDRange{"user": m.UIDs, "group": m.GIDs} {
		root := false
		for _, r := range list {
			if r.Size == 0 || uint64(r.Container)+uint64(r.Size) > 1<<32-1 || uint64(r.Host)+uint64(r.Size) > 1<<32-1 {
				return invalid("user namespace: %s ids %d to %d, %d of them, are no ids", name, r.Container, r.Host, r.Size)
			}
			root = root || r.Container == 0
		}
		if !root {
			return invalid("user namespace: no %s id of the host is given for root", name)
		}
		if len(list) > 340 { // user_namespaces(7)
			return invalid("user namespace: more than 340 ranges of %s ids", name)
		}
	}
	return nil
}

func (r IDRange) contains(host uint32) bool { return host >= r.Host && host-r.Host < r.Size }

// ContainerID is an id of the host as processes in the user namespace see it.
func ContainerID(list []IDRange, host uint32) uint32 {
	for _, r := range list {
		if r.contains(host) {
			return r.Container + host - r.Host
		}
	}
	return 65534 // the kernel's overflow id
}

func ociIDs(list []IDRange) (out []specs.LinuxIDMapping) {
	for _, r := range list {
		out = append(out, specs.LinuxIDMapping{ContainerID: r.Container, HostID: r.Host, Size: r.Size})
	}
	return out
}

// rootOptions are the options of a root's mount that map its owners.
func (m *IDMap) rootOptions() []string {
	if m == nil {
		return nil
	}
	write := func(key string, list []IDRange) string {
		var parts []string
		for _, r := range list {
			parts = append(parts, fmt.Sprintf("%d:%d:%d", r.Container, r.Host, r.Size))
		}
		return key + strings.Join(parts, ",")
	}
	return []string{write("uidmap=", m.UIDs), write("gidmap=", m.GIDs)}
}

// root are the host's ids of the namespace's root.
func (m *IDMap) root() (uid, gid uint32) {
	find := func(list []IDRange) uint32 {
		for _, r := range list {
			if r.Container == 0 {
				return r.Host
			}
		}
		return 0
	}
	return find(m.UIDs), find(m.GIDs)
}

// hostOwner gives the host's ids of an owner inside; one that isn't mapped can't own anything there.
func (m *IDMap) hostOwner(uid, gid uint32) (hostUID, hostGID uint32, err error) {
	find := func(list []IDRange, id uint32) (uint32, error) {
		for _, r := range list {
			if id >= r.Container && id-r.Container < r.Size {
				return r.Host + id - r.Container, nil
			}
		}
		return 0, invalid("owner %d:%d has no place in the container's user namespace", uid, gid)
	}
	if hostUID, err = find(m.UIDs, uid); err == nil {
		hostGID, err = find(m.GIDs, gid)
	}
	return hostUID, hostGID, err
}

// inside gives what names the host's owners as those in the user namespace; nil where there is no mapping.
func (m *IDMap) inside() func(uid, gid uint32) (uint32, uint32) {
	if m == nil {
		return nil
	}
	return func(uid, gid uint32) (uint32, uint32) { return ContainerID(m.UIDs, uid), ContainerID(m.GIDs, gid) }
}

// idMap is the mapping of the user namespace that a container is in, or nil.
func (c *container) idMap() *IDMap {
	if c.group == nil {
		return c.rec.User // never changed
	}
	return c.group.spec().User
}

// userNS is where that namespace is pinned while the container runs.
func (c *container) userNS() string {
	if c.group != nil {
		return c.group.ns("user")
	}
	return filepath.Join(c.pod, "user")
}

// write gives a process's new user namespace its mapping.
func (m *IDMap) write(pid int) error {
	for file, list := range map[string][]IDRange{"uid_map": m.UIDs, "gid_map": m.GIDs} {
		var b strings.Builder
		for _, r := range list {
			fmt.Fprintf(&b, "%d %d %d\n", r.Container, r.Host, r.Size)
		}
		// One write: the kernel takes the whole map at once.
		if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), file), []byte(b.String()), 0); err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
	}
	return nil
}

// pinUserNamespaces makes a pod's user namespace, and with it those that are to belong to it: only a process that is
// born in them all can do that. If the pod shares a pid namespace, that process goes on as what holds it.
func (e *Engine) pinUserNamespaces(p *pod) error {
	s := p.spec()
	kinds := map[string]uint64{}
	if !s.HostNetwork {
		kinds["net"], kinds["uts"] = unix.CLONE_NEWNET, unix.CLONE_NEWUTS
	}
	if !s.HostIPC {
		kinds["ipc"] = unix.CLONE_NEWIPC
	}
	if !s.SharePID || s.HostPID {
		return s.User.pin(kinds, p.ns, nil, nil)
	}
	kinds["pid"] = unix.CLONE_NEWPID
	file, err := e.openHolder()
	if err != nil {
		return err
	}
	defer file.Close()
	return s.User.pin(kinds, p.ns, file, func(proc *launch.Proc) { p.rec.Holder = proc.Pid })
}

// pin makes a user namespace of the mapping and others that belong to it, by kind, and pins each where at says. With a
// holder, the process that was born in them goes on as that program and is told to held, and its end is somebody else's
// doing; else it ends.
func (m *IDMap) pin(kinds map[string]uint64, at func(kind string) string, holder *os.File, held func(*launch.Proc)) error {
	kinds["user"] = unix.CLONE_NEWUSER
	cfg := launch.Config{Program: launch.New()}
	defer cfg.Program.Free()
	for _, flag := range kinds {
		cfg.Flags |= flag
	}
	cfg.Sync = func(proc *launch.Proc, _ launch.Point) error {
		if err := m.write(proc.Pid); err != nil {
			return err
		}
		for kind := range kinds {
			if err := pin(fmt.Sprintf("/proc/%d/ns/%s", proc.Pid, kind), at(kind)); err != nil {
				return err
			}
		}
		return nil
	}
	const mapped = 1
	prog := cfg.Program
	prog.Step("wait for the user namespace's mappings")
	prog.Call(unix.SYS_PRCTL, launch.N(unix.PR_SET_DUMPABLE), launch.N(0), launch.N(0), launch.N(0), launch.N(0))
	prog.Sync(mapped)
	if holder == nil {
		prog.Call(unix.SYS_EXIT_GROUP, launch.N(0))
		cfg.Until = mapped
	} else {
		emitHolder(prog, holder)
	}
	proc, err := launch.Run(context.Background(), cfg)
	if err != nil {
		return fmt.Errorf("make the user namespace: %w", err)
	}
	if holder == nil {
		proc.Kill()
		return nil
	}
	held(proc)
	go func() { // its end is asked for by dropNamespaces
		defer proc.PidFD.Close()
		for unix.Waitid(unix.P_PID, proc.Pid, nil, unix.WEXITED, nil) == unix.EINTR {
		}
	}()
	return nil
}

// openHolder opens the program that holds a pid namespace: by descriptor, as root of a user namespace may not reach
// its directory.
func (e *Engine) openHolder() (*os.File, error) {
	program, err := linux.OpenProgram(e.cfg.Shim)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	fd, err := unix.Open(program.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: e.cfg.Shim, Err: err}
	}
	return os.NewFile(uintptr(fd), e.cfg.Shim), nil
}

// emitHolder makes the process root of its user namespace, which is nobody on the host, and then the holder.
func emitHolder(p *launch.Program, file *os.File) {
	p.Step("become root in the user namespace")
	p.Call(unix.SYS_SETRESGID, launch.N(0), launch.N(0), launch.N(0))
	p.Call(unix.SYS_SETGROUPS, launch.N(0), launch.N(0))
	p.Call(unix.SYS_SETRESUID, launch.N(0), launch.N(0), launch.N(0))
	p.Step("start what holds the pid namespace")
	p.Call(unix.SYS_SETSID)
	p.Call(unix.SYS_RT_SIGPROCMASK, launch.N(unix.SIG_SETMASK), launch.Ptr(p.Mem(8)), launch.N(0), launch.N(8))
	p.Call(unix.SYS_CHDIR, p.Str("/"))
	args := p.Strs([]string{filepath.Base(file.Name()), shim.HoldAction})
	p.Call(unix.SYS_EXECVEAT, launch.N(file.Fd()), p.Str(""), args, p.Strs(shim.SmallEnv()), launch.N(unix.AT_EMPTY_PATH))
}

// mappedDirs gives directories with the owners of a pinned user namespace, as detached mounts that hold until done.
func mappedDirs(dirs []string, userNS string) (mapped []overlay.Dir, done func(), err error) {
	done = func() {
		for _, d := range mapped {
			d.Mount.Close()
		}
	}
	ns, err := unix.Open(userNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: userNS, Err: err}
	}
	defer unix.Close(ns)
	for _, d := range dirs {
		fd, err := unix.OpenTree(unix.AT_FDCWD, d, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err == nil {
			mapped = append(mapped, overlay.Dir{Mount: os.NewFile(uintptr(fd), d)})
			err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)})
		}
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("map owners of %s: %w", d, err)
		}
	}
	return mapped, done, nil
}

// MapsOwners says whether the kernel can give an overlay's directories other owners: Linux 5.19.
var MapsOwners = sync.OnceValue(func() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		return false
	}
	_, err := os.Stat("/proc/self/ns/user")
	return err == nil && (major > 5 || major == 5 && minor >= 19)
})
