package runtime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"cale/runtime/launch"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// namespaces is how a container's namespaces come about.
type namespaces struct {
	clone      uint64 // made by the child's clone
	fork       uint64 // made by a second one, in the child, which has joined others before
	later      uint64 // made by unshare in the child: the control group and time namespaces
	joins      []join
	pid        *os.File // the pid namespace to be born in
	newUser    bool
	privileged bool
	files      []*os.File
}

type join struct {
	file *os.File
	flag uint64
	name string
}

// newNamespaces opens the namespaces to join.
func newNamespaces(s *specs.Spec, privileged bool) (_ *namespaces, err error) {
	n := &namespaces{privileged: privileged}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	var made uint64
	var user *join
	for _, ns := range s.Linux.Namespaces {
		flag, _ := spec.NamespaceFlag(ns.Type)
		if ns.Path == "" {
			if flag == unix.CLONE_NEWCGROUP || flag == unix.CLONE_NEWTIME {
				n.later |= flag
			} else {
				made |= flag
			}
			continue
		}
		f, err := os.OpenFile(ns.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("namespace %s: %w", ns.Type, err)
		}
		n.files = append(n.files, f)
		if typ, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || uint64(typ) != flag {
			return nil, fmt.Errorf("namespace %s: %s is no such namespace", ns.Type, ns.Path)
		}
		j := join{f, flag, string(ns.Type)}
		switch {
		case flag == unix.CLONE_NEWPID && privileged:
			n.pid = f
		case flag == unix.CLONE_NEWUSER:
			user = &j
		default:
			n.joins = append(n.joins, j)
		}
	}
	// Root may join what belongs to any user namespace, and loses that right in one; others only get rights there.
	if user != nil && privileged {
		n.joins = append(n.joins, *user)
	} else if user != nil {
		n.joins = append([]join{*user}, n.joins...)
	}
	n.newUser = made&unix.CLONE_NEWUSER != 0
	// What is joined has to be joined before a user namespace is made or the others are made in a joined one.
	if len(n.joins) > 0 && (n.newUser || user != nil) {
		n.fork = made
	} else {
		n.clone = made
	}
	return n, nil
}

func (n *namespaces) close() {
	for _, f := range n.files {
		f.Close()
	}
	n.files = nil
}

// emit adds the steps that join and make namespaces, up to being root in them.
func (n *namespaces) emit(p *launch.Program, s *specs.Spec, setgroups bool) {
	inUser := n.newUser
	forkAnyway := false
	for _, j := range n.joins {
		p.Step("join the " + j.name + " namespace")
		p.Call(unix.SYS_SETNS, launch.N(j.file.Fd()), launch.N(j.flag))
		inUser = inUser || j.flag == unix.CLONE_NEWUSER
		forkAnyway = forkAnyway || j.flag == unix.CLONE_NEWPID
	}
	if n.later&unix.CLONE_NEWTIME != 0 && !inUser {
		emitTimeNamespace(p, s)
	}
	if n.fork != 0 || forkAnyway {
		p.Step("clone the process")
		p.Fork(n.fork)
		p.Step("prepare the process")
		emitPrivate(p)
	}
	if n.newUser {
		p.Step("wait for the user namespace's mappings")
		if !n.privileged {
			// Only root may write the files in /proc of a process that can't be dumped.
			emitDumpable(p)
		}
		p.Sync(syncMaps)
		emitPrivate(p)
	}
	if inUser {
		// In one that is joined, the additional groups may have to stay.
		emitBecomeRoot(p, setgroups, !n.privileged && !n.newUser)
		if n.later&unix.CLONE_NEWTIME != 0 {
			emitTimeNamespace(p, s)
		}
	}
	if n.later&unix.CLONE_NEWCGROUP != 0 {
		p.Step("make the cgroup namespace")
		p.Call(unix.SYS_UNSHARE, launch.N(unix.CLONE_NEWCGROUP))
	}
}

// emitBecomeRoot makes the process root of the user namespace it is in, and with setgroups takes its additional groups
// away; with denied, the namespace may not allow that (user_namespaces(7)), which nobody outside can tell.
func emitBecomeRoot(p *launch.Program, setgroups, denied bool) {
	p.Step("become root in the user namespace")
	p.Call(unix.SYS_SETRESGID, launch.N(0), launch.N(0), launch.N(0))
	if setgroups {
		op := p.Call(unix.SYS_SETGROUPS, launch.N(0), launch.N(0))
		if denied {
			op.Accept(unix.EPERM)
		}
	}
	p.Call(unix.SYS_SETRESUID, launch.N(0), launch.N(0), launch.N(0))
}

// emitTimeNamespace makes a time namespace and enters it. The kernel would do the latter with the execve, but only
// since Linux 6.3.
func emitTimeNamespace(p *launch.Program, s *specs.Spec) {
	p.Step("make the time namespace")
	p.Call(unix.SYS_UNSHARE, launch.N(unix.CLONE_NEWTIME))
	if len(s.Linux.TimeOffsets) > 0 {
		var b strings.Builder
		for _, clock := range []string{"monotonic", "boottime"} {
			if o, ok := s.Linux.TimeOffsets[clock]; ok {
				fmt.Fprintf(&b, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
			}
		}
		p.Step("set the time namespace's offsets")
		// A process that may not be dumped can't write it as root of a user namespace.
		p.Call(unix.SYS_PRCTL, launch.N(unix.PR_SET_DUMPABLE), launch.N(1), launch.N(0), launch.N(0), launch.N(0))
		fd := p.Call(unix.SYS_OPENAT, atCwd, p.Str("/proc/self/timens_offsets"), launch.N(unix.O_WRONLY|unix.O_CLOEXEC)).New()
		p.Call(unix.SYS_WRITE, fd.Arg(), p.Str(b.String()), launch.N(b.Len()))
		p.Close(fd)
		p.Call(unix.SYS_PRCTL, launch.N(unix.PR_SET_DUMPABLE), launch.N(0), launch.N(0), launch.N(0), launch.N(0))
	}
	p.Step("enter the time namespace")
	ns := p.Call(unix.SYS_OPENAT, atCwd, p.Str("/proc/self/ns/time_for_children"), launch.N(unix.O_RDONLY|unix.O_CLOEXEC)).New()
	p.Call(unix.SYS_SETNS, ns.Arg(), launch.N(unix.CLONE_NEWTIME))
	p.Close(ns)
}

// writeMaps writes a user namespace's mappings from outside it.
func writeMaps(pid int, uids, gids []specs.LinuxIDMapping, denySetgroups bool) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	if denySetgroups {
		if err := os.WriteFile(dir+"setgroups", []byte("deny"), 0); err != nil {
			return fmt.Errorf("deny setgroups: %w", err)
		}
	}
	for _, m := range []struct {
		file string
		ids  []specs.LinuxIDMapping
	}{{"uid_map", uids}, {"gid_map", gids}} {
		var b strings.Builder
		for _, id := range m.ids {
			fmt.Fprintf(&b, "%d %d %d\n", id.ContainerID, id.HostID, id.Size)
		}
		// One write: the kernel takes the whole map at once.
		err := os.WriteFile(dir+m.file, []byte(b.String()), 0)
		if errors.Is(err, os.ErrPermission) {
			err = helperMap(pid, m.file, m.ids)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", m.file, err)
		}
	}
	return nil
}

// helperMap has the set-uid programs of shadow-utils write a map, which let a user map what /etc/subuid grants.
func helperMap(pid int, file string, ids []specs.LinuxIDMapping) error {
	name := "new" + strings.ReplaceAll(file, "_", "") // newuidmap, newgidmap
	args := []string{strconv.Itoa(pid)}
	for _, id := range ids {
		args = append(args, fmt.Sprint(id.ContainerID), fmt.Sprint(id.HostID), fmt.Sprint(id.Size))
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
