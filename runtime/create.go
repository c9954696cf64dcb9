package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cale/atomicfile"
	"cale/runtime/cgroup"
	"cale/runtime/launch"
	"cale/runtime/linux"
	"cale/runtime/rootfs"
	"cale/runtime/seccomp"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Create makes a container whose process waits just before its execve. If it fails, nothing is left. The caller is
// the process's parent and has to reap it.
func Create(ctx context.Context, o Options) (*Container, error) { return create(ctx, o, true) }

// Run is Create and Start in one, without the waiting in between.
func Run(ctx context.Context, o Options) (*Container, error) { return create(ctx, o, false) }

func create(ctx context.Context, o Options, wait bool) (_ *Container, err error) {
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	s, raw, bundle, err := o.load()
	if err != nil {
		return nil, err
	}
	if s.Process == nil {
		if !wait {
			return nil, ErrNoProcess
		}
		// Only starting it needs a process.
		s.Process = &specs.Process{Cwd: "/", Args: []string{""}}
	}
	if err := (terminalTarget{o.ConsoleSocket, o.Console}).check(s.Process); err != nil {
		return nil, err
	}
	// These hooks come between the two; and of a process without room only one that is waited for tells its end before
	// its program's from the program's.
	start := !wait && (s.Hooks != nil && len(s.Hooks.StartContainer) > 0 || tight(s.Linux.Resources))
	wait = wait || start
	c, lock, err := newContainer(o, s, raw, bundle)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	defer func() {
		if err != nil {
			if c.ready != nil {
				c.ready.Close()
			}
			if c.pidfd != nil {
				(&launch.Proc{Pid: c.rec.Pid, PidFD: c.pidfd}).Kill()
				c.pidfd = nil
			}
			c.remove()
		}
	}()
	if o.NotifySocket != "" {
		if err := c.addReady(s, o.NotifySocket); err != nil {
			return nil, err
		}
		if !wait || start {
			if c.ready, err = c.ListenReady(); err != nil {
				return nil, err
			}
		}
	}
	if err := c.launch(ctx, o, wait); err != nil {
		return nil, err
	}
	if o.PidFile != "" {
		if err := atomicfile.Write(o.PidFile, fmt.Append(nil, c.rec.Pid), 0o644, false); err != nil {
			return nil, fmt.Errorf("pid file: %w", err)
		}
	}
	switch {
	case start:
		err = c.start(ctx)
	case !wait:
		err = c.poststart(s)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// load gives the configuration, checked, with its text and the bundle's absolute path.
func (o *Options) load() (s *specs.Spec, raw []byte, bundle string, err error) {
	if err := validID(o.ID); err != nil {
		return nil, nil, "", err
	}
	if bundle, err = filepath.Abs(o.Bundle); err != nil {
		return nil, nil, "", err
	}
	s, raw = o.Spec, o.Config
	if s == nil {
		s, raw, err = spec.Load(filepath.Join(bundle, spec.File))
	} else if raw == nil {
		raw, err = json.Marshal(s)
	}
	if err != nil {
		return nil, nil, "", err
	}
	mapped, err := mapAll(s)
	if err != nil {
		return nil, nil, "", err
	}
	if mapped {
		if raw, err = json.Marshal(s); err != nil {
			return nil, nil, "", err
		}
	}
	if err := spec.Validate(s); err != nil {
		return nil, nil, "", err
	}
	return s, raw, bundle, checkSyscalls(s)
}

// failUnknown is crun's annotation that has a seccomp profile refused for a name that is no system call, which
// otherwise is left out.
const failUnknown = "run.oci.seccomp_fail_unknown_syscall"

func checkSyscalls(s *specs.Spec) error {
	if v, ok := s.Annotations[failUnknown]; !ok || v == "0" || s.Linux == nil {
		return nil
	}
	if name := seccomp.Unknown(s.Linux.Seccomp); name != "" {
		return fmt.Errorf("seccomp: unknown system call %q, which %s forbids", name, failUnknown)
	}
	return nil
}

// mapAll gives a new user namespace that is to have no mappings those of the caller, so that every ID means in it what
// it means outside, as crun does: the specification leaves open what such a configuration means. Who isn't root would
// have to be granted them.
func mapAll(s *specs.Spec) (bool, error) {
	l := s.Linux
	if l == nil || !spec.NewNamespace(s, specs.UserNamespace) || len(l.UIDMappings)+len(l.GIDMappings) > 0 || os.Geteuid() != 0 {
		return false, nil
	}
	var err error
	if l.UIDMappings, err = ownIDs("uid_map"); err != nil {
		return false, err
	}
	l.GIDMappings, err = ownIDs("gid_map")
	return true, err
}

// ownIDs is the IDs there are in this process's user namespace, each mapped to itself.
func ownIDs(file string) ([]specs.LinuxIDMapping, error) {
	text, err := os.ReadFile("/proc/self/" + file)
	if err != nil {
		return nil, err
	}
	var ids []specs.LinuxIDMapping
	for line := range strings.Lines(string(text)) {
		var first, outside, size uint32
		if _, err := fmt.Sscan(line, &first, &outside, &size); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		ids = append(ids, specs.LinuxIDMapping{ContainerID: first, HostID: first, Size: size})
	}
	return ids, nil
}

// newContainer makes the state directory, locked, with all on disk that finds what is made next.
func newContainer(o Options, s *specs.Spec, raw []byte, bundle string) (*Container, *stateLock, error) {
	c := &Container{Warn: o.Warn, dir: filepath.Join(o.StateDir, o.ID), spec: s}
	c.rec = record{
		Format: recordVersion, ID: o.ID, Bundle: bundle, Rootfs: spec.Rootfs(s, bundle), Created: time.Now().UTC(),
		UID: linux.User(), CgroupPath: s.Linux.CgroupsPath,
	}
	if o.SystemdCgroup && !o.NoCgroup {
		if err := c.setUnit(s); err != nil {
			return nil, nil, err
		}
	}
	err := os.Mkdir(c.dir, 0o700)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
			return nil, nil, err
		}
		err = os.Mkdir(c.dir, 0o700)
	}
	if errors.Is(err, os.ErrExist) {
		return nil, nil, fmt.Errorf("%w: %s", ErrExists, o.ID)
	}
	if err != nil {
		return nil, nil, err
	}
	lock, err := c.lock()
	if err == nil {
		// Before the group is written down as this container's: removing the container ends what is in it.
		err = checkCgroup(c.rec.CgroupPath, o.ID)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, configFile), raw, 0o600)
	}
	if err == nil {
		err = c.save()
	}
	if err != nil {
		if lock != nil {
			lock.Close()
		}
		os.RemoveAll(c.dir)
		return nil, nil, err
	}
	return c, lock, nil
}

// launch makes the container's cgroup and process.
func (c *Container) launch(ctx context.Context, o Options, wait bool) error {
	s := c.spec
	privileged := linux.PermittedCapabilities()&(1<<unix.CAP_SYS_ADMIN) != 0
	if !privileged && !spec.HasNamespace(s, specs.UserNamespace) {
		return errors.New("rootless container requires user namespaces")
	}
	plan := &initPlan{spec: s, setgroups: true, progress: progress{debug: o.Debug}}
	if !o.NoNewKeyring {
		plan.keyring = keyringName(o.ID)
	}
	plan.unprivileged = !privileged
	ns, err := newNamespaces(s, privileged)
	if err != nil {
		return err
	}
	defer ns.close()
	plan.ns = ns
	// Who maps but its own group may do so only without setgroups (user_namespaces(7)).
	denySetgroups := ns.newUser && !privileged && len(s.Linux.GIDMappings) == 1 && s.Linux.GIDMappings[0].Size == 1
	plan.setgroups = !denySetgroups && !linux.SetgroupsDenied()
	if !plan.setgroups && len(s.Process.User.AdditionalGids) > 0 {
		return errors.New("cannot set any additional groups in a rootless container")
	}
	plan.setgroups = plan.setgroups && !o.KeepGroups

	defer c.endHolder() // which is there also if making the group fails
	group, err := c.makeCgroup(o, privileged)
	if err != nil {
		return err
	}
	cfg := launch.Config{Flags: ns.clone, PidNS: ns.pid}
	var dirs map[string]string
	if group != nil {
		if cfg.Cgroup, plan.cgroups, err = openCgroup(group); err != nil {
			return err
		}
		defer closeAll(append(plan.cgroups, cfg.Cgroup))
		dirs = group.Dirs()
	} else if slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" || m.Type == "cgroup2" }) {
		// It stays in ours: that is what it may look at.
		if dirs, err = cgroup.OwnDirs(); err != nil && !errors.Is(err, cgroup.ErrAbsent) {
			return err
		}
	}
	shares, err := c.makeResctrl()
	if err != nil {
		return err
	}
	defer closeAll(shares)
	plan.cgroups = slices.Concat(plan.cgroups, shares) // not in the array of what is closed above
	hasUser := spec.HasNamespace(s, specs.UserNamespace)
	plan.tree, err = rootfs.Prepare(rootfs.Options{
		Spec: s, Bundle: c.rec.Bundle, Mounts: o.Rootfs, CgroupDirs: dirs, NewUser: hasUser,
		Unprivileged: !privileged || linux.InUserNamespace(), HostMounts: !spec.HasNamespace(s, specs.MountNamespace), NoPivot: o.NoPivot,
		UserNS: openUserNS, Warn: o.Warn,
	})
	if err != nil {
		return initError{err}
	}
	defer plan.tree.Close()
	stdio := [3]*os.File{o.Stdin, o.Stdout, o.Stderr}
	plan.proc, err = newProcess(s.Process, stdio, o.PreserveFDs, hasUser, s.Linux.Seccomp, o.Warn)
	if err != nil {
		return err
	}
	defer plan.proc.close()
	if plan.proc.landlock, err = newLandlocked(s); err != nil {
		return err
	}
	if !s.Process.Terminal {
		c.noteStdio(plan.proc.stdio)
	}
	if n := len(plan.proc.filter.Program); n > 0 && o.Debug != nil {
		o.Debug(fmt.Sprintf("seccomp filter flags: %d", plan.proc.filter.Flags))
		o.Debug(fmt.Sprintf("seccomp filter instructions: %d", n))
	}
	plan.proc.setHome(func() string { return homeIn(plan.tree.RootFile(), s.Process.User.UID) })
	plan.hooks = s.Hooks != nil && len(s.Hooks.Prestart)+len(s.Hooks.CreateRuntime)+len(s.Hooks.CreateContainer) > 0 ||
		len(s.Linux.NetDevices) > 0
	if wait {
		if plan.start, err = c.makeFifo(); err != nil {
			return err
		}
		defer plan.start.Close()
		cfg.Until = syncReady
	}
	cfg.Program = launch.New()
	defer cfg.Program.Free()
	if err := plan.emit(cfg.Program); err != nil {
		return err
	}
	term := terminalTarget{o.ConsoleSocket, o.Console}
	cfg.Sync = func(p *launch.Proc, at launch.Point) error {
		switch at.ID {
		case syncMaps:
			return writeMaps(p.Pid, s.Linux.UIDMappings, s.Linux.GIDMappings, denySetgroups)
		case syncConsole:
			return term.deliver(at.Sent)
		case syncHooks:
			if err := c.setInit(p); err != nil {
				return err
			}
			if err := moveNetDevices(s, p); err != nil {
				return err
			}
			return c.createHooks(p)
		case syncNotify:
			return c.sendListener(p, int(at.Value), s)
		case syncReady:
			return c.setInit(p)
		default:
			if at.ID >= rootfs.Points {
				return plan.tree.Serve(at)
			}
			plan.progress.tell(p, at)
		}
		return nil
	}
	if o.Debug != nil {
		o.Debug(fmt.Sprintf("container %s: %d steps up to its execve", c.rec.ID, cfg.Program.Len()))
	}
	proc, err := launch.Run(ctx, cfg)
	if err != nil {
		err = oomError(group, schedulerError(plan.tree.Explain(err), s.Linux.Resources))
		return initError{commandError(err, s.Process.Args[0])}
	}
	c.pidfd = proc.PidFD
	if !wait {
		if err := c.setInit(proc); err != nil {
			proc.Kill()
			return err
		}
	}
	return nil
}

// setInit writes down who init is.
func (c *Container) setInit(p *launch.Proc) error {
	if c.rec.Pid == p.Pid {
		return nil
	}
	st, err := linux.ReadProcessStat(p.Pid)
	if err != nil {
		return fmt.Errorf("process %d: %w", p.Pid, err)
	}
	c.rec.Pid, c.rec.PidStart = p.Pid, st.Start
	return c.save()
}

// makeFifo makes and opens what a created container waits on and answers to. It is opened for reading and writing, so
// that neither the opening nor a lack of the other side blocks.
func (c *Container) makeFifo() (*os.File, error) {
	file := filepath.Join(c.dir, startFifo)
	if err := unix.Mkfifo(file, 0o600); err != nil {
		return nil, &os.PathError{Op: "make fifo", Path: file, Err: err}
	}
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: file, Err: err}
	}
	return os.NewFile(uintptr(fd), file), nil
}

// openUserNS makes a user namespace with mappings and returns it; its only process ends at once.
func openUserNS(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	p := launch.New()
	defer p.Free()
	p.Sync(syncMaps)
	p.Call(unix.SYS_EXIT_GROUP, launch.N(0))
	var ns *os.File
	proc, err := launch.Run(context.Background(), launch.Config{
		Program: p, Flags: unix.CLONE_NEWUSER,
		Sync: func(p *launch.Proc, _ launch.Point) (err error) {
			if err := writeMaps(p.Pid, uids, gids, false); err != nil {
				return err
			}
			ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", p.Pid))
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	proc.Kill()
	return ns, nil
}
