package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"cale/atomicfile"
	"cale/runtime/launch"
	"cale/runtime/linux"
	"cale/runtime/seccomp"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Exec runs a process in a container. It is a child of the caller, who has to reap it.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (*Process, error) {
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	s, err := c.Spec()
	if err != nil {
		return nil, err
	}
	if err := spec.ValidateProcess(o.Process); err != nil {
		return nil, err
	}
	term := terminalTarget{o.ConsoleSocket, o.Console}
	if err := term.check(o.Process); err != nil {
		return nil, err
	}
	init, err := c.openInit()
	if err != nil {
		return nil, err
	}
	defer init.Close()
	g, err := c.Cgroup()
	if err != nil {
		return nil, err
	}
	if g != nil && !o.IgnorePaused {
		if frozen, err := g.Frozen(); err == nil && frozen {
			return nil, errors.New("cannot exec in a paused container (use --ignore-paused to override)")
		}
	}
	j, err := c.join(init, s)
	if err != nil {
		return nil, err
	}
	defer j.close()
	j.setgroups = j.setgroups && !o.KeepGroups
	if err := j.openCgroups(c, o.CgroupSub); err != nil {
		return nil, err
	}
	stdio := [3]*os.File{o.Stdin, o.Stdout, o.Stderr}
	pr, err := newProcess(o.Process, stdio, o.PreserveFDs, j.user, s.Linux.Seccomp, o.Warn)
	if err != nil {
		return nil, err
	}
	defer pr.close()
	if pr.landlock, err = newLandlocked(s); err != nil {
		return nil, err
	}
	pr.setHome(func() string { return homeIn(j.root, o.Process.User.UID) })
	plan := &initPlan{spec: s, proc: pr, setgroups: j.setgroups, unprivileged: !j.privileged, progress: progress{debug: o.Debug}}
	p := launch.New()
	defer p.Free()
	plan.progress.stage(p, "nsexec container setup")
	a := o.Process.ExecCPUAffinity
	if a != nil {
		if err := emitAffinity(p, a.Initial); err != nil {
			return nil, err
		}
		plan.progress.affinity(p)
	}
	pr.emitEarly(p)
	emitJoinCgroups(p, j.cgroups)
	if a == nil || a.Initial == "" && a.Final == "" {
		emitAllProcessors(p)
	}
	if a != nil {
		if err := emitAffinity(p, a.Final); err != nil {
			return nil, err
		}
	}
	j.emit(p)
	plan.progress.stage(p, "child process in init()")
	p.Step("start a session")
	p.Call(unix.SYS_SETSID)
	if err := emitPersonality(p, s.Linux.Personality); err != nil {
		return nil, err
	}
	if err := emitMemoryPolicy(p, s.Linux.MemoryPolicy); err != nil {
		return nil, err
	}
	if o.Process.Terminal {
		emitControl(p, pr.emitTerminal(p, -1))
	} else {
		pr.emitStdio(p)
	}
	if err := plan.finish(p, "setns_init: about to exec"); err != nil {
		return nil, err
	}
	proc, err := launch.Run(ctx, launch.Config{Program: p, Cgroup: j.cgroupDir, PidNS: j.pidNS, Sync: func(p *launch.Proc, at launch.Point) error {
		switch at.ID {
		case syncConsole:
			return term.deliver(at.Sent)
		case syncNotify:
			return c.sendListener(p, int(at.Value), s)
		default:
			plan.progress.tell(p, at)
		}
		return nil
	}})
	if err != nil {
		return nil, initError{commandError(schedulerError(err, s.Linux.Resources), o.Process.Args[0])}
	}
	if o.PidFile != "" {
		if err := atomicfile.Write(o.PidFile, fmt.Append(nil, proc.Pid), 0o644, false); err != nil {
			proc.Kill()
			return nil, fmt.Errorf("pid file: %w", err)
		}
	}
	return &Process{Pid: proc.Pid, PidFD: proc.PidFD}, nil
}

// joining is what a process needs to get into a container's namespaces.
type joining struct {
	init      *os.File // init's pidfd
	flags     uint64
	pidNS     *os.File
	fork      bool
	user      bool
	setgroups bool
	// privileged is whether the caller is root here, rather than in the container's user namespace.
	privileged bool
	root       *os.File // the container's root
	cgroupDir  *os.File
	cgroups    []*os.File
}

// join works out which namespaces of init are not the caller's own.
func (c *Container) join(init *os.File, s *specs.Spec) (*joining, error) {
	j := &joining{init: init, setgroups: true, privileged: linux.PermittedCapabilities()&(1<<unix.CAP_SYS_ADMIN) != 0}
	for _, ns := range s.Linux.Namespaces {
		flag, _ := spec.NamespaceFlag(ns.Type)
		if flag == unix.CLONE_NEWUSER && !otherNamespace(c.rec.Pid, "user") {
			continue // the kernel refuses to enter one's own again
		}
		j.flags |= flag
	}
	// CRIU restores into a time namespace, asked for or not.
	if c.rec.Restored && otherNamespace(c.rec.Pid, "time") {
		j.flags |= unix.CLONE_NEWTIME
	}
	j.user = j.flags&unix.CLONE_NEWUSER != 0
	if j.flags&unix.CLONE_NEWPID != 0 {
		if j.privileged {
			j.pidNS = init
			j.flags &^= unix.CLONE_NEWPID
		} else {
			j.fork = true
		}
	}
	if j.user {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(c.rec.Pid) + "/setgroups")
		j.setgroups = err != nil || strings.TrimSpace(string(b)) != "deny"
	}
	j.setgroups = j.setgroups && !linux.SetgroupsDenied()
	fd, err := unix.Open("/proc/"+strconv.Itoa(c.rec.Pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the root of container %s: %w", c.rec.ID, err)
	}
	j.root = os.NewFile(uintptr(fd), "root")
	if !c.alive() {
		j.root.Close()
		return nil, ErrNotRunning
	}
	return j, nil
}

// otherNamespace reports whether a process is in another namespace than the caller.
func otherNamespace(pid int, name string) bool {
	var a, b unix.Stat_t
	if unix.Stat("/proc/self/ns/"+name, &a) != nil || unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/"+name, &b) != nil {
		return false
	}
	return a.Ino != b.Ino || a.Dev != b.Dev
}

func (j *joining) close() {
	closeAll(append(j.cgroups, j.root, j.cgroupDir))
}

// openCgroups opens the container's groups, or those below them that sub names by controller.
func (j *joining) openCgroups(c *Container, sub map[string]string) (err error) {
	shares, err := openTasks(c.rec.Resctrl)
	if err != nil {
		return err
	}
	defer func() { j.cgroups = append(j.cgroups, shares...) }()
	g, err := c.Cgroup()
	if err != nil || g == nil {
		return err
	}
	if j.cgroupDir, j.cgroups, err = openCgroup(g); err != nil {
		return err
	}
	if len(sub) == 0 {
		return nil
	}
	for controller, name := range sub {
		if path.Clean("/"+name) != path.Join("/", name) || slices.Contains(strings.Split(name, "/"), "..") {
			return fmt.Errorf("bad sub cgroup path: %s", name)
		}
		if _, ok := g.Dirs()[controller]; controller != "" && !ok {
			return fmt.Errorf("unknown controller %s in a sub cgroup", controller)
		}
		for i, f := range j.cgroups {
			dir := path.Dir(f.Name())
			if controller != "" && g.Dirs()[controller] != dir {
				continue
			}
			nf, err := openTask(path.Join(dir, name, path.Base(f.Name())))
			if err != nil {
				return fmt.Errorf("adding pid to a sub cgroup: %w", err)
			}
			f.Close()
			j.cgroups[i] = nf
		}
		if controller != "" || j.cgroupDir == nil {
			continue
		}
		fd, err := unix.Openat(int(j.cgroupDir.Fd()), path.Join(".", name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			j.cgroupDir.Close()
			j.cgroupDir = os.NewFile(uintptr(fd), name)
		} else if g.V2() {
			return fmt.Errorf("adding pid to a sub cgroup: open %s: %w", name, err)
		}
	}
	return nil
}

// emit adds the steps that enter the namespaces.
func (j *joining) emit(p *launch.Program) {
	if j.flags != 0 {
		p.Step("join the container's namespaces")
		p.Call(unix.SYS_SETNS, launch.N(j.init.Fd()), launch.N(j.flags))
	}
	if j.fork {
		p.Step("clone the process")
		p.Fork(0)
	}
	if j.user {
		emitBecomeRoot(p, j.setgroups, false)
	}
	if j.flags&unix.CLONE_NEWNS == 0 {
		// The container has the host's mounts: only its root tells it apart.
		p.Step("enter the container's root")
		p.Call(unix.SYS_FCHDIR, launch.N(j.root.Fd()))
		p.Call(unix.SYS_CHROOT, p.Str("."))
	}
	p.Call(unix.SYS_CHDIR, p.Str("/"))
}

// homeIn is a user's home by the passwd file below a root, or "/".
func homeIn(root *os.File, uid uint32) string {
	at, err := unix.Openat2(int(root.Fd()), "etc/passwd", &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "/"
	}
	defer unix.Close(at)
	// To open a device is to use it, and here nothing keeps the container from the host's: it is looked at first.
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "/"
	}
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(at))
	if err != nil {
		return "/"
	}
	defer f.Close()
	if home, ok := passwdField(f, uid, 5); ok && home != "" {
		return home
	}
	return "/"
}

// runInside runs a hook in a container's namespaces, which a process is in whose pidfd is given. Before the root is
// entered that process still sees the host's files, and so does the hook.
func (c *Container) runInside(h specs.Hook, state []byte, init *os.File, kind string) error {
	j, err := c.join(init, c.spec)
	if err != nil {
		return err
	}
	defer j.close()
	in, toHook, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	fromHook, out, err := os.Pipe()
	if err != nil {
		toHook.Close()
		return err
	}
	defer fromHook.Close()
	pr := &process{spec: &specs.Process{Args: hookArgs(h), Cwd: "/"}, env: h.Env, stdio: [3]*os.File{in, out, out}}
	if sec := c.spec.Linux.Seccomp; kind == startContainer && sec != nil {
		// What runs the container's own files is held to the container's rules, as in runc.
		f, err := seccomp.Compile(sec)
		if err != nil {
			return err
		}
		if !f.NeedsListener {
			pr.filter = f
		}
	}
	p := launch.New()
	defer p.Free()
	pr.emitEarly(p)
	j.emit(p)
	pr.emitStdio(p)
	if kind == createContainer {
		p.Step("enter the root file system's directory")
		p.Call(unix.SYS_CHDIR, p.Str(c.rec.Rootfs)).AcceptAny() // as runc does, where it can be reached
	} else {
		pr.setHome(func() string { return homeIn(j.root, c.spec.Process.User.UID) })
	}
	command := p.Reg()
	p.Set(command, p.Str(h.Path))
	p.Call(unix.SYS_UMASK, launch.N(0o022))
	pr.emitExec(p, command)
	ctx, cancel := hookContext(h)
	defer cancel()
	proc, err := launch.Run(ctx, launch.Config{Program: p, PidNS: j.pidNS})
	out.Close()
	if err != nil {
		toHook.Close()
		return commandError(err, h.Path)
	}
	defer proc.PidFD.Close()
	go func() {
		toHook.Write(state) // a hook that doesn't read it is no error
		toHook.Close()
	}()
	stop := context.AfterFunc(ctx, func() { unix.PidfdSendSignal(int(proc.PidFD.Fd()), unix.SIGKILL, nil, 0) })
	defer stop()
	text := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(fromHook, 4096))
		text <- strings.TrimSpace(string(b))
		io.Copy(io.Discard, fromHook)
	}()
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(proc.Pid, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	if ctx.Err() != nil && h.Timeout != nil {
		return fmt.Errorf("hook ran past specified timeout of %ds", *h.Timeout)
	}
	if err != nil {
		return fmt.Errorf("wait for hook: %w", err)
	}
	if ws.Signaled() {
		return fmt.Errorf("signal: %s", ws.Signal())
	}
	if ws.ExitStatus() != 0 {
		fromHook.SetReadDeadline(time.Now().Add(time.Second))
		return fmt.Errorf("exit status %d, output: %s", ws.ExitStatus(), <-text)
	}
	return nil
}
